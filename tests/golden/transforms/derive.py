"""Cuts the small files in tests/golden/{transforms,blur} from the reference vectors: derive.py REFERENCE_FOLDER"""
import pathlib
import shutil
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

reference = pathlib.Path(sys.argv[1])
here = pathlib.Path(__file__).parent
full = load_file(reference / "transforms.safetensors")
keep = ("center_crop/", "center_crop_padding/", "shorter_edge/", "exif_transposed/", "mask/decoded", "mask/values", "mask/v2_resize_40x50", "mask/v2_resize_100x75")
small = {k: v for k, v in full.items() if k.startswith(keep)}
for name in ("rgb_97x61.png", "palette_97x61.png"):
    small["decoded/" + name] = full["decoded/" + name]
small["decoded_u16/grey16_97x61.png"] = full["decoded_u16/grey16_97x61.png"].astype(np.int32)
# One channel is enough: the channels do not mix.
small["decoded/rgb_301x257.png"] = full["decoded/rgb_301x257.png"][:, :, :1]
small["resize_257x301_to_64x48/float_antialias"] = full["resize_257x301_to_64x48/float_antialias"][:1]
save_file({k: np.ascontiguousarray(v) for k, v in small.items()}, here / "small.safetensors")
images = ["rgb_97x61.png", "palette_97x61.png", "grey16_97x61.png", "mask_97x61.png"]
for name in images + [f"exif{i}_24x16.jpg" for i in range(1, 9)]:
    shutil.copyfile(reference / "images" / name, here / name)

full = load_file(reference / "blur.safetensors")
keep = ("17x64x1/", "20x20x1/", "40x70x2/", "kernel_line_f64")
save_file({k: v for k, v in full.items() if k.startswith(keep)}, here.parent / "blur" / "small.safetensors")
