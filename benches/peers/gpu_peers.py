"""Times the formulas of PyTorch and anomalib on the shapes of a run of the GPU benchmarks, with CUDA events.

    gpu_peers.py OURS.json [OUT.json [MORE.json]...]

OURS.json is what `gpu --out OURS.json` wrote on the same GPU, MORE.json what `gpu-backbone` and `gpu-flow` wrote. Prints a Markdown table with ratios; OUT.json gets the rows.
Without PyTorch or a GPU it says so and exits with 0. Single precision throughout, TF32 off, as anomalib runs by default; networks
also in fp16, channels-last, with the algorithms cuDNN finds fastest.
"""

import json
import math
import sys


def skip(why):
    print(f"SKIPPED: the formulas of PyTorch. {why}")
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w") as file:
            json.dump({"skipped": why, "rows": []}, file)
    sys.exit(0)


if len(sys.argv) < 2:
    sys.exit(__doc__)
with open(sys.argv[1]) as file:
    ours = json.load(file)
for name in sys.argv[3:]:
    with open(name) as file:
        ours["rows"] += (json.load(file) or {"rows": []})["rows"]
if not ours["rows"]:
    skip("There are no timings to compare with.")
try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    skip(f"PyTorch is not here: {error}.")
if not torch.cuda.is_available():
    skip("PyTorch finds no GPU.")

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
torch.manual_seed(0)
GPU = torch.device("cuda")
# Picks of the greedy loop that are timed; the rest take as long each.
PICKS = 200


def uniform(*shape):
    return torch.rand(*shape, device=GPU) * 2 - 1


def features(n, d):
    scale = 1 / torch.sqrt(1 + torch.arange(d, device=GPU) / 8)
    return (uniform(n, d) + uniform(n, d)) * scale


def euclidean(x, y):
    """anomalib's PatchcoreModel.euclidean_dist."""
    x_norm = x.pow(2).sum(dim=-1, keepdim=True)
    y_norm = y.pow(2).sum(dim=-1, keepdim=True)
    res = x_norm - 2 * torch.matmul(x, y.transpose(-2, -1)) + y_norm.transpose(-2, -1)
    return res.clamp_min_(0).sqrt_()


def mahalanobis(n, side, d, **_):
    """anomalib's embedding and MultiVariateGaussian distance."""
    maps = [uniform(n, c, side // f, side // f) for c, f in ((256, 1), (512, 2), (1024, 4))]
    index = torch.arange(d, device=GPU) * 1792 // d
    mean = uniform(d, side * side)
    inverse = uniform(side * side, d, d)

    def call():
        rows = torch.cat([F.interpolate(m, size=(side, side), mode="nearest") for m in maps], 1)
        rows = torch.index_select(rows, 1, index)
        delta = (rows.reshape(n, d, -1) - mean).permute(2, 0, 1)
        squared = (torch.matmul(delta, inverse) * delta).sum(2).permute(1, 0)
        return squared.reshape(n, 1, side, side).clamp(0).sqrt()

    return call, 1


def nearest(m, n, d, k):
    query, bank = features(m, d), features(n, d)

    def call():
        distances = euclidean(query, bank)
        return distances.min(1) if k == 1 else distances.topk(k, largest=False, dim=1)

    return call, 1


def pairwise(m, n, d):
    query, bank = uniform(m, d), uniform(n, d)
    return lambda: torch.cdist(query, bank), 1


def kcenter(n, d, count):
    """anomalib's KCenterGreedy on features that are projected already."""
    points = features(n, d)
    picks = min(count, PICKS)

    def call():
        least, at = None, 0
        for _ in range(picks):
            distances = torch.linalg.norm(points - points[at : at + 1], ord=2, dim=1, keepdim=True)
            least = distances if least is None else torch.minimum(least, distances)
            at = int(torch.argmax(least).item())

    return call, count / picks


def blur(n, side):
    """anomalib's GaussianBlur2d: one convolution with a square kernel."""
    maps = uniform(n, 1, side, side)
    taps = torch.arange(33, device=GPU) - 16.0
    line = torch.exp(-taps.pow(2) / 32)
    line = line / line.sum()
    kernel = torch.outer(line, line)[None, None]
    return lambda: F.conv2d(F.pad(maps, (16, 16, 16, 16), mode="reflect"), kernel), 1


def antialias(**shape):
    start, end = shape["from"], shape["to"]
    host = (torch.rand(1, 3, start, start) * 255).to(torch.uint8)

    def call():
        picture = host.to(GPU).float()
        return F.interpolate(picture, size=(end, end), mode="bilinear", antialias=True, align_corners=False)

    return call, 1


def bilinear(**shape):
    maps = uniform(shape["n"], shape["c"], shape["from"], shape["from"])
    return lambda: F.interpolate(maps, size=(shape["to"],) * 2, mode="bilinear", align_corners=False), 1


def embed(n, side, c1, c2):
    """anomalib's feature pooling and embedding."""
    first, second = uniform(n, c1, side, side), uniform(n, c2, side // 2, side // 2)
    pool = torch.nn.AvgPool2d(3, 1, 1)

    def call():
        other = F.interpolate(pool(second), size=(side, side), mode="bilinear")
        return torch.cat((pool(first), other), 1).permute(0, 2, 3, 1).reshape(-1, c1 + c2).contiguous()

    return call, 1


class Bottleneck(torch.nn.Module):
    """torchvision's; batch norms are those of evaluation."""

    def __init__(self, c, width, o, stride):
        super().__init__()
        conv, norm = torch.nn.Conv2d, torch.nn.BatchNorm2d
        self.one = torch.nn.Sequential(conv(c, width, 1, bias=False), norm(width), torch.nn.ReLU(True))
        three = conv(width, width, 3, stride, 1, bias=False)
        self.two = torch.nn.Sequential(three, norm(width), torch.nn.ReLU(True))
        self.three = torch.nn.Sequential(conv(width, o, 1, bias=False), norm(o))
        self.down = None
        if stride != 1 or c != o:
            self.down = torch.nn.Sequential(conv(c, o, 1, stride, bias=False), norm(o))

    def forward(self, x):
        other = x if self.down is None else self.down(x)
        return torch.relu_(self.three(self.two(self.one(x))) + other)


class Basic(torch.nn.Module):
    def __init__(self, c, o, stride):
        super().__init__()
        conv, norm = torch.nn.Conv2d, torch.nn.BatchNorm2d
        first = conv(c, o, 3, stride, 1, bias=False)
        self.body = torch.nn.Sequential(
            first, norm(o), torch.nn.ReLU(True), conv(o, o, 3, 1, 1, bias=False), norm(o)
        )
        self.down = None
        if stride != 1 or c != o:
            self.down = torch.nn.Sequential(conv(c, o, 1, stride, bias=False), norm(o))

    def forward(self, x):
        return torch.relu_(self.body(x) + (x if self.down is None else self.down(x)))


def resnet(net):
    """The stem and the first three stages, which is what the detectors read."""
    stem = torch.nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    pool = torch.nn.MaxPool2d(3, 2, 1)
    layers, c = [stem, torch.nn.BatchNorm2d(64), torch.nn.ReLU(True), pool], 64
    wide = net == "wide_resnet50_2"
    for stage, count in enumerate((3, 4, 6) if wide else (2, 2, 2)):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            if wide:
                width, o = 128 << stage, 256 << stage
                layers.append(Bottleneck(c, width, o, stride))
            else:
                o = 64 << stage
                layers.append(Basic(c, o, stride))
            c = o
    return torch.nn.Sequential(*layers)


def network(net, n, side, precision, **_):
    torch.backends.cudnn.benchmark = True
    half = precision == "fp16"
    kind = torch.float16 if half else torch.float32
    form = torch.channels_last if half else torch.contiguous_format
    model = resnet(net).eval().to(GPU, kind, memory_format=form)
    pictures = uniform(n, 3, side, side).to(kind).to(memory_format=form)

    def call():
        with torch.inference_mode():
            model(pictures)

    for _ in range(3):
        call()
    return call, 1


def moments(n, side, d):
    """anomalib's MultiVariateGaussian.fit: a covariance for each position in turn, then all inverses."""
    vectors = features(n * side * side, d).reshape(n, side * side, d).permute(0, 2, 1).contiguous()
    identity = torch.eye(d, device=GPU)

    def call():
        positions = vectors.shape[2]
        covariance = torch.zeros(d, d, positions, device=GPU)
        for i in range(positions):
            rows = vectors[:, :, i]
            delta = (rows - rows.mean(0, keepdim=True)).t()
            covariance[:, :, i] = delta.matmul(delta.t()) / (n - 1) + 0.01 * identity
        vectors.mean(0)
        torch.linalg.inv(covariance.permute(2, 0, 1))

    return call, 1


def projection(**shape):
    """scikit-learn's sparse random projection, as a dense product on the GPU, which is the faster way there."""
    rows, matrix = uniform(shape["n"], shape["from"]), uniform(shape["from"], shape["to"])
    return lambda: torch.matmul(rows, matrix), 1


class Linear:
    """A linear layer on few rows: forward with ReLU, back to its input, and the gradient with a step of fused Adam."""

    def __init__(self, part, bf16):
        self.part, self.bf16 = part, bf16

    def __call__(self, n, outputs, inputs, condition):
        weight = torch.nn.Parameter(uniform(outputs, inputs + condition))
        x, g, bias = uniform(n, inputs + condition), uniform(n, outputs), uniform(outputs)
        optimiser = torch.optim.Adam([weight], lr=1e-4, fused=True)
        weight.grad = torch.zeros_like(weight)

        def call():
            with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=self.bf16, cache_enabled=False):
                if self.part == "forward":
                    torch.relu_(F.linear(x, weight, bias))
                elif self.part == "backward":
                    torch.matmul(g, weight[:, :inputs])
                else:
                    weight.grad.copy_(torch.matmul(g.t(), x))
                    optimiser.step()

        return call, 1


class Coupling(torch.nn.Module):
    """FrEIA's AllInOneBlock as anomalib's CFlow-AD has it, with a permutation."""

    def __init__(self, c, k):
        super().__init__()
        self.c1, self.c2 = c - c // 2, c // 2
        width = self.c1 + k
        self.subnet = torch.nn.Sequential(
            torch.nn.Linear(width, 2 * width), torch.nn.ReLU(), torch.nn.Linear(2 * width, 2 * self.c2)
        )
        self.theta = torch.nn.Parameter(torch.full((1, c), 9.98))
        self.offset = torch.nn.Parameter(torch.zeros(1, c))
        self.register_buffer("order", torch.randperm(c))

    def forward(self, x, cond):
        x1, x2 = torch.split(x, [self.c1, self.c2], 1)
        a = self.subnet(torch.cat([x1, cond], 1)) * 0.1
        s = 1.9 * torch.tanh(a[:, : self.c2])
        y = torch.cat([x1, x2 * torch.exp(s) + a[:, self.c2 :]], 1)
        scale = 0.1 * F.softplus(self.theta, beta=0.5)
        z = (y * scale + self.offset)[:, self.order]
        return z, s.sum(1) + torch.log(scale).sum()


def decoder(channels, blocks, condition):
    return torch.nn.ModuleList([Coupling(channels, condition) for _ in range(blocks)]).to(GPU)


def likelihood(flow, x, cond):
    det = torch.zeros(len(x), device=GPU)
    for block in flow:
        x, own = block(x, cond)
        det = det + own
    return (-0.5 * x.pow(2).sum(1) - x.shape[1] * 0.9189385 + det) / x.shape[1]


def cflow_step(channels, samples, blocks, condition, precision):
    """A step as anomalib takes it; Adam fused, which is faster than its default."""
    flow = decoder(channels, blocks, condition)
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=True)
    x, cond = uniform(samples, channels), uniform(samples, condition)

    def call():
        optimiser.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            loss = -F.logsigmoid(likelihood(flow, x, cond).float()).mean()
        loss.backward()
        optimiser.step()
        loss.item()

    return call, 1


def cflow_score(channels, samples, blocks, condition):
    flow = decoder(channels, blocks, condition)
    x, cond = uniform(samples, channels), uniform(samples, condition)

    def call():
        with torch.inference_mode():
            likelihood(flow, x, cond)

    return call, 1


class Window:
    """The gradient of the weight of a convolution whose maps lie channels-last."""

    def __call__(self, n, side, c, o, kernel):
        last = torch.channels_last
        x, g = uniform(n, c, side, side).to(memory_format=last), uniform(n, o, side, side).to(memory_format=last)
        return lambda: torch.nn.grad.conv2d_weight(x, (o, c, kernel, kernel), g, padding=kernel // 2), 1


def norm(back):
    def formula(n, side, c):
        x = uniform(n, c, side, side)
        weight, bias = torch.nn.Parameter(uniform(c, side, side)), torch.nn.Parameter(uniform(c, side, side))
        y = F.layer_norm(x, weight.shape, weight, bias)
        g = torch.ones_like(y)

        def call():
            if back:
                torch.autograd.grad(y, [weight, bias], g, retain_graph=True)
            else:
                with torch.no_grad():
                    F.layer_norm(x, weight.shape, weight, bias)

        return call, 1

    return formula


class MapCoupling(torch.nn.Module):
    """FrEIA's AllInOneBlock as anomalib's FastFlow has it, with a permutation."""

    def __init__(self, c, kernel):
        super().__init__()
        self.c1, self.c2 = c - c // 2, c // 2
        self.subnet = torch.nn.Sequential(
            torch.nn.Conv2d(self.c1, self.c1, kernel, padding="same"),
            torch.nn.ReLU(),
            torch.nn.Conv2d(self.c1, 2 * self.c2, kernel, padding="same"),
        )
        self.theta = torch.nn.Parameter(torch.full((1, c, 1, 1), 9.98))
        self.offset = torch.nn.Parameter(torch.zeros(1, c, 1, 1))
        self.register_buffer("order", torch.randperm(c))

    def forward(self, x):
        x1, x2 = torch.split(x, [self.c1, self.c2], 1)
        a = self.subnet(x1) * 0.1
        s = 2.0 * torch.tanh(a[:, : self.c2])
        y = torch.cat([x1, x2 * torch.exp(s) + a[:, self.c2 :]], 1)
        scale = 0.1 * F.softplus(self.theta, beta=0.5)
        z = (y * scale + self.offset)[:, self.order]
        return z, s.sum((1, 2, 3)) + x[0, 0].numel() * torch.log(scale).sum()


def map_flow(channels, side, blocks):
    layers = [MapCoupling(channels, 1 if b % 2 else 3) for b in range(blocks)]
    return torch.nn.ModuleList([torch.nn.LayerNorm((channels, side, side)), *layers]).to(GPU)


def latents(flow, x):
    x, det = flow[0](x), 0
    for block in flow[1:]:
        x, own = block(x)
        det = det + own
    return x, det


def fastflow_step(channels, side, pictures, blocks):
    """A step as anomalib takes it on features that are there; Adam fused, which is faster than its default."""
    flow = map_flow(channels, side, blocks)
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=True)
    x = uniform(pictures, channels, side, side)

    def call():
        optimiser.zero_grad()
        z, det = latents(flow, x)
        loss = (0.5 * z.pow(2).sum((1, 2, 3)) - det).mean()
        loss.backward()
        optimiser.step()
        loss.item()

    return call, 1


def fastflow_score(channels, side, pictures, blocks):
    flow = map_flow(channels, side, blocks)
    x = uniform(pictures, channels, side, side)

    def call():
        with torch.inference_mode():
            z, det = latents(flow, x)
            z.pow(2).mean(1)

    return call, 1


FORMULAS = {
    "fastflow_step": fastflow_step,
    "fastflow_score": fastflow_score,
    "window_gradient": Window(),
    "norm_maps": norm(False),
    "norm_gradient": norm(True),
    "cflow_step": cflow_step,
    "cflow_score": cflow_score,
    **{
        f"product_{part}_{kind}": Linear(part, kind == "bf16")
        for part in ("forward", "backward", "update")
        for kind in ("f32", "bf16")
    },
    "product_many_f32": Linear("forward", False),
    "network": network,
    "moments_fit": moments,
    "projection": projection,
    "mahalanobis_triangle": mahalanobis,
    "mahalanobis_nested": mahalanobis,
    "mahalanobis_low_rank": mahalanobis,
    "nearest": nearest,
    "pairwise_squared": pairwise,
    "kcenter": kcenter,
    "blur": blur,
    "resize_antialias": antialias,
    "resize_bilinear": bilinear,
    "embed": embed,
}


def median_ms(call, repetitions):
    """Median of CUDA events; a repetition that is slow ends the series early."""
    call()
    torch.cuda.synchronize()
    times = []
    for _ in range(repetitions):
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        call()
        after.record()
        torch.cuda.synchronize()
        times.append(before.elapsed_time(after))
        if sum(times) > 5000 and len(times) >= 3:
            break
    times.sort()
    return times[len(times) // 2]


def main():
    rows = []
    for row in ours["rows"]:
        formula = FORMULAS.get(row["op"])
        if formula is None:
            continue
        entry = {"op": row["op"], "shape": row["shape"], "ours_ms": row["ms"]}
        try:
            call, times = formula(**row["shape"])
            entry["peer_ms"] = median_ms(call, ours["repetitions"]) * times
            entry["extrapolated"] = times != 1
            entry["ratio"] = entry["peer_ms"] / row["ms"] if row["ms"] else math.nan
        except torch.cuda.OutOfMemoryError:
            entry["peer_ms"] = None
            entry["why"] = "out of GPU memory"
        torch.cuda.empty_cache()
        rows.append(entry)
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, single precision\n")
    print("| operation | shape | ours, ms | PyTorch, ms | times faster |\n|---|---|---:|---:|---:|")
    for entry in rows:
        shape = " ".join(f"{k}={v}" for k, v in entry["shape"].items())
        if entry["peer_ms"] is None:
            peer, ratio = entry["why"], ""
        else:
            peer = f"{entry['peer_ms']:.3f}" + (" (extrapolated)" if entry["extrapolated"] else "")
            ratio = f"{entry['ratio']:.2f}"
        print(f"| {entry['op']} | {shape} | {entry['ours_ms']:.3f} | {peer} | {ratio} |")
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w") as file:
            json.dump({"torch": torch.__version__, "gpu": torch.cuda.get_device_name(), "rows": rows}, file, indent=1)


main()
