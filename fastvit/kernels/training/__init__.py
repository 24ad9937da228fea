"""Operators of the collapsed train form, registered with torch.library, in plain PyTorch and in Triton.

`branch_sum`, `depthwise_conv`, `norm_pointwise`, `pointwise` and `subsample` are the operators. The modules `passes_*`
and `depthwise_*` compute the first two; `dispatch` chooses between PyTorch and Triton at run time.
"""
