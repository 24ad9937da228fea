"""The functions that create the tasks' networks by name, in one place for `import fastvit`."""

from fastvit.tasks.detection.create import create_detector
from fastvit.tasks.hand_mesh.create import create_hand_regressor
from fastvit.tasks.segmentation.create import create_segmenter

__all__ = ["create_detector", "create_hand_regressor", "create_segmenter"]
