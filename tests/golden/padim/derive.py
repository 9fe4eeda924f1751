"""Cuts the PaDiM reference vectors down to what the tests need.

python derive.py FULL/padim.safetensors          writes padim.safetensors beside this script

Keeps the upper left quarter of the grid (8 x 8 of 16 x 16, and what belongs to it of the coarser maps), covariances at a
few of its positions, and whole distance grids with their maps of two pictures.
"""

import os
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

full = load_file(sys.argv[1])
out = {"index": full["index"].astype(np.int32)}
for layer, side in (("layer1", 8), ("layer2", 4), ("layer3", 2)):
    for split in ("train", "test"):
        out[f"{split}/{layer}"] = full[f"{split}/{layer}"][:, :, :side, :side]
out["test/embedding"] = full["test/embedding"][:, :, :8, :8]
out["mean"] = full["mean"].reshape(-1, 16, 16)[:, :8, :8].reshape(-1, 64)
positions = np.array([0, 1, 9, 27, 38, 55, 63])
places = positions // 8 * 16 + positions % 8
out["positions"] = positions.astype(np.int32)
for name in ("covariance_raw", "inverse_covariance"):
    out[name] = full[name][places]
out["distance_f64"] = full["distance_f64"][:, :, :8, :8].astype(np.float32)
out["map_in"] = full["distance"][[0, 2]]
for size in ("64x64", "100x75"):
    out[f"score_{size}"] = full[f"score_{size}"][[0, 2]]
out["map_64x64"] = full["map_64x64"][[0, 2]]
out["map_100x75"] = full["map_100x75"][[0, 2]][:, :, ::10]
save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, os.path.join(os.path.dirname(os.path.abspath(__file__)), "padim.safetensors"))
