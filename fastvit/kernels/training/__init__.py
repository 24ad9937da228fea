"""What the collapsed train form is computed with: operators for torch.library, in plain torch and in Triton.

`branch_sum` and `depthwise_conv` are the operators; `passes_*` and `depthwise_*` compute them. Which of the two does is
decided at run time, by `dispatch`.
"""
