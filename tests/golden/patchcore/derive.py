"""Cuts the PatchCore reference vectors down to what the tests need.

python derive.py FULL/patchcore.safetensors          writes patchcore.safetensors beside this script

Indices become 32-bit, pooled maps keep the first picture, embeddings the first 64 rows.
"""

import os
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

full = load_file(sys.argv[1])
out = {}
keep = [
    "features/layer1", "features/layer2", "start", "coreset_raw/indices", "coreset_raw/radius",
    "coreset_projected/indices", "coreset_projected/radius", "projection", "nearest/distance_f64", "nearest/index",
    "top9/distance", "top9/index", "top9/index_is_safe", "score_k1", "score_k5", "score_k9", "score_k1000", "map_64x64",
    "ties/points", "ties/start", "ties/indices", "ties/radius",
    "repeated/points", "repeated/start", "repeated/indices", "repeated/radius",
]
for name in keep:
    value = full[name]
    out[name] = value.astype(np.int32) if value.dtype == np.int64 else value
for name in ["pooled/layer1", "pooled/layer2"]:
    out[name] = full[name][:1]
out["embedding"] = full["embedding"][:64]
out["projected"] = full["projected"][:8]
out["map_100x75"] = full["map_100x75"][:1, :, ::3]
# Names in sorted order and no metadata, so that the bytes do not depend on the run.
save_file({k: np.ascontiguousarray(out[k]) for k in sorted(out)}, os.path.join(os.path.dirname(os.path.abspath(__file__)), "patchcore.safetensors"))
