"""Cuts the maps of CFlow and FastFlow out of the full reference vectors: python derive.py REFERENCE_FOLDER"""
import json
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

tensors = {}
for name, prefix in (("cflow", "map/"), ("fastflow", "two_layers/")):
    with safe_open(Path(sys.argv[1]) / f"{name}.safetensors", "np") as file:
        tensors |= {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}
info = {"from": "cflow.safetensors map/*, fastflow.safetensors two_layers/*"}
save_file(tensors, Path(__file__).parent / "maps.safetensors", metadata={"info": json.dumps(info)})
