"""Names of the files in a run's directory."""

from __future__ import annotations

# The complete recipe, hardware and versions, and the split into training and validation images.
RECIPE, ENVIRONMENT, SPLIT = "recipe.yaml", "environment.json", "split.csv"
# Weights: averaged (EMA) of the best and the last epoch; as trained; averaged with recalibrated batch norm statistics.
BEST, LAST, TRAINED = "best.safetensors", "last.safetensors", "trained.safetensors"
RECALIBRATED = "recalibrated.safetensors"
# The state to resume from.
STATE = "last.ckpt"
# Logs.
HISTORY, TENSORBOARD, UNREADABLE = "metrics.csv", "tensorboard", "unreadable.txt"
# Reports and their data, of training and of the commands that evaluate a run.
REPORT, CURVES = "report.html", "curves.png"
EVALUATION, EVALUATION_PAGE = "evaluation.json", "evaluation.html"
ROBUSTNESS, ROBUSTNESS_PAGE = "robustness.json", "robustness.html"
