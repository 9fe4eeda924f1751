"""Writes the small PyTorch files: make_pth.py. Plain Python, no torch.

Python's own pickler writes the same opcodes for torch.save as here: the stand-ins below only lend it the names.
Storage 0 is 0, 1, ... 23 in f32; storages 1 to 3 hold 0.5, -1.5, 2.0 in f64, f16 and bf16; storage 4 holds 7 in i64.
"""
import collections
import io
import pathlib
import pickle
import struct
import sys
import types
import zipfile

HERE = pathlib.Path(__file__).parent


def named(module, name, value):
    """Makes `value` importable as module.name, which is all that pickling by reference asks for."""
    value.__module__, value.__qualname__, value.__name__ = module, name, name
    setattr(sys.modules.setdefault(module, types.ModuleType(module)), name, value)
    return value


def rebuild_tensor_v2(*_):
    pass


def rebuild_parameter(*_):
    pass


named("torch._utils", "_rebuild_tensor_v2", rebuild_tensor_v2)
named("torch._utils", "_rebuild_parameter", rebuild_parameter)
STORAGE = {n: named("torch", n, type(n, (), {})) for n in
           ("FloatStorage", "DoubleStorage", "HalfStorage", "BFloat16Storage", "LongStorage")}


class Storage:
    def __init__(self, kind, key, count, data):
        self.kind, self.key, self.count, self.data = kind, key, count, data


class Tensor:
    def __init__(self, storage, offset, size, stride, parameter=False):
        self.args = (storage, offset, size, stride, False, collections.OrderedDict())
        self.parameter = parameter

    def __reduce__(self):
        if self.parameter:
            return rebuild_parameter, (Tensor(*self.args[:4]), True, collections.OrderedDict())
        return rebuild_tensor_v2, self.args


class Pickler(pickle.Pickler):
    legacy = False

    def persistent_id(self, value):
        if isinstance(value, Storage):
            view = (None,) if self.legacy else ()
            return ("storage", STORAGE[value.kind], value.key, "cpu", value.count, *view)


def pickled(value, legacy=False):
    out = io.BytesIO()
    pickler = Pickler(out, protocol=2)
    pickler.legacy = legacy
    pickler.dump(value)
    return out.getvalue()


def bf16(x):
    return struct.pack("<f", x)[2:]


S = [
    Storage("FloatStorage", "0", 24, struct.pack("<24f", *range(24))),
    Storage("DoubleStorage", "1", 3, struct.pack("<3d", 0.5, -1.5, 2.0)),
    Storage("HalfStorage", "2", 3, struct.pack("<3e", 0.5, -1.5, 2.0)),
    Storage("BFloat16Storage", "3", 3, b"".join(map(bf16, (0.5, -1.5, 2.0)))),
    Storage("LongStorage", "4", 1, struct.pack("<q", 7)),
]


def state(prefix):
    weights = collections.OrderedDict([
        (prefix + "whole", Tensor(S[0], 0, (2, 3, 4), (12, 4, 1))),
        (prefix + "offset", Tensor(S[0], 4, (5,), (1,), parameter=True)),
        (prefix + "transposed", Tensor(S[0], 0, (4, 6), (1, 4))),
        (prefix + "f64", Tensor(S[1], 0, (3,), (1,))),
        (prefix + "f16", Tensor(S[2], 0, (3,), (1,))),
        (prefix + "bf16", Tensor(S[3], 0, (3,), (1,))),
        (prefix + "scalar", Tensor(S[4], 0, (), ())),
    ])
    weights._metadata = collections.OrderedDict([("", {"version": 1})])
    return weights


def write_zip(name, value, compression=zipfile.ZIP_STORED, storages=S):
    with zipfile.ZipFile(HERE / name, "w", compression) as archive:
        def add(entry, data):
            archive.writestr(zipfile.ZipInfo(f"archive/{entry}"), data, compression)
        add("data.pkl", pickled(value))
        add("byteorder", b"little")
        for storage in storages:
            add(f"data/{storage.key}", storage.data)
        add("version", b"3\n")


def write_legacy(name, value):
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(v, protocol=2) for v in (0x1950a86a20f9469cfc6c, 1001, system)]
    parts += [pickled(value, legacy=True), pickle.dumps([s.key for s in S], protocol=2)]
    parts += [struct.pack("<q", s.count) + s.data for s in S]
    (HERE / name).write_bytes(b"".join(parts))


class Evil:
    def __reduce__(self):
        import os
        return os.system, ("touch pwned",)


checkpoint = {"epoch": 3, "lr": 0.1, "big": 1 << 80, "flags": [True, None], "state_dict": state("module.")}
write_zip("zip.pth", checkpoint)
write_zip("deflated.pth", state(""), zipfile.ZIP_DEFLATED)
write_legacy("legacy.pth", checkpoint)
write_zip("evil.pth", {"state_dict": Evil()}, storages=[])
write_zip("beyond.pth", {"x": Tensor(S[0], 20, (2, 3), (3, 1))})
write_zip("wide.pth", {"x": Tensor(S[0], 0, (1 << 40,), (0,))})
write_zip("missing.pth", {"x": Tensor(S[0], 0, (2,), (1,))}, storages=S[1:])
