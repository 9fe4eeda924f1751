"""Cuts the vectors of metrics.safetensors that fit a repository: python metrics.py REFERENCE_FOLDER"""
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

KEEP = ("image/", "roc/", "pr/", "sigmoid_per_batch/", "threshold_rule/", "pixel/masks", "pixel/smooth/", "pixel/ties/")

with safe_open(Path(sys.argv[1]) / "metrics.safetensors", "np") as file:
    tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith(KEEP)}
    save_file(tensors, Path(__file__).with_suffix(".safetensors"), {"info": file.metadata()["info"]})
