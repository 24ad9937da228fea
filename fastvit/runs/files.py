"""Names of the files in a run's directory, each written in one place and read in others."""

from __future__ import annotations

# The whole recipe, what the numbers were measured with, and which images were held out.
RECIPE, ENVIRONMENT, SPLIT = "recipe.yaml", "environment.json", "split.csv"
# Weights: averaged, of the best and of the last epoch; as trained; the averaged ones with norm statistics of their own.
BEST, LAST, TRAINED = "best.safetensors", "last.safetensors", "trained.safetensors"
RECALIBRATED = "recalibrated.safetensors"
# The state to resume from.
STATE = "last.ckpt"
# What was logged.
HISTORY, TENSORBOARD, UNREADABLE = "metrics.csv", "tensorboard", "unreadable.txt"
# Pages and what they show, of training and of the commands that measure a run afterwards.
REPORT, CURVES = "report.html", "curves.png"
EVALUATION, EVALUATION_PAGE = "evaluation.json", "evaluation.html"
ROBUSTNESS, ROBUSTNESS_PAGE = "robustness.json", "robustness.html"
