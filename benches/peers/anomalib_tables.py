"""anomalib's own PaDiM or PatchCore on one category in the MVTec layout, as one JSON object.

    anomalib_tables.py MODEL CATEGORY_DIR [--backbone NAME] [--layers A,B] [--weights FILE] [--coreset-ratio SHARE]

Prints training seconds (features, and covariances or coreset; pictures are read before), median milliseconds a picture, image
and pixel AUROC. The greedy coreset is slow: some ten picks a second on 250,000 patches. Other models: {"unknown": true}.
"""

import argparse
import contextlib
import io
import json
import sys
import time
import warnings
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("category", type=Path)
parser.add_argument("--backbone", default="resnet18")
parser.add_argument("--layers")
parser.add_argument("--weights")
parser.add_argument("--coreset-ratio", type=float, default=0.1)
args = parser.parse_args()
if args.model not in ("padim", "patchcore"):
    print(json.dumps({"unknown": True}))
    sys.exit(0)

warnings.filterwarnings("ignore")
import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torchvision.transforms import v2

torch.set_num_threads(max(1, len(__import__("os").sched_getaffinity(0))))
torch.manual_seed(0)
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CROP = 224 if args.model == "patchcore" else None
steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Resize((256, 256), antialias=True)]
steps += [v2.CenterCrop(CROP)] if CROP else []
transform = v2.Compose(steps + [v2.Normalize(MEAN, STD)])


def read(path):
    return transform(Image.open(path).convert("RGB"))


def mask(path):
    kind, side = path.parent.name, CROP or 256
    if kind == "good":
        return np.zeros((side, side), bool)
    file = args.category / "ground_truth" / kind / f"{path.stem}_mask.png"
    full = np.asarray(Image.open(file).convert("L").resize((256, 256), Image.NEAREST)) > 0
    edge = (256 - side) // 2
    return full[edge : 256 - edge, edge : 256 - edge]


def files(pattern):
    return sorted(p for p in args.category.glob(pattern) if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"))


layers = args.layers.split(",") if args.layers else ["layer1", "layer2", "layer3"][CROP is not None :]
if args.model == "padim":
    from anomalib.models.image.padim.torch_model import PadimModel

    wanted = {"resnet18": 100, "wide_resnet50_2": 550}.get(args.backbone, 100)
    model = PadimModel(backbone=args.backbone, layers=layers, pre_trained=False, n_features=wanted)
else:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(layers=layers, backbone=args.backbone, pre_trained=False)
if args.weights:
    if args.weights.endswith(".safetensors"):
        from safetensors.torch import load_file

        weights = load_file(args.weights)
    else:
        weights = torch.load(args.weights, weights_only=True)
    model.feature_extractor.feature_extractor.load_state_dict(weights, strict=False)
images = torch.stack([read(p) for p in files("train/good/*")])
model.train()
model.feature_extractor.eval()
start = time.perf_counter()
with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
    for i in range(0, len(images), 32):
        model(images[i : i + 32])
    if args.model == "padim":
        model.fit()
    else:
        model.subsample_embedding(args.coreset_ratio)
train_seconds = time.perf_counter() - start
model.eval()
times, scores, maps, masks, labels = [], [], [], [], []
with torch.no_grad():
    for path in files("test/*/*"):
        picture = read(path)[None]
        start = time.perf_counter()
        found = model(picture)
        times.append(time.perf_counter() - start)
        scores.append(float(found.pred_score))
        maps.append(found.anomaly_map[0, 0].numpy().ravel())
        masks.append(mask(path).ravel())
        labels.append(path.parent.name != "good")
name = args.model if args.model == "padim" else f"{args.model}, {args.coreset_ratio:g} kept"
print(
    json.dumps(
        {
            "name": name,
            "train_seconds": train_seconds,
            "latency_p50_ms": sorted(times)[len(times) // 2] * 1e3,
            "image_auroc": roc_auc_score(labels, scores),
            "pixel_auroc": roc_auc_score(np.concatenate(masks), np.concatenate(maps)),
        }
    )
)
