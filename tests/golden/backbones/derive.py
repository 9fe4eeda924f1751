"""Cuts the 64x64 maps out of the full reference files: derive.py REFERENCE_FOLDER. Plain Python, no packages."""
import json
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).parent
for net in ("resnet18", "mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_b5"):
    data = (pathlib.Path(sys.argv[1]) / "backbones" / f"{net}.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    info = json.loads(header.pop("__metadata__")["info"])
    keep = ("state_checksum", "gain", "versions")
    out = {"__metadata__": {"info": json.dumps({key: info[key] for key in keep}, sort_keys=True)}}
    body = b""
    for name in sorted(header):
        if name.startswith("1x3x64x64/") and not name.endswith((".shape", ".summary")):
            begin, end = header[name]["data_offsets"]
            out[name] = {**header[name], "data_offsets": [len(body), len(body) + end - begin]}
            body += data[8 + length + begin:8 + length + end]
    text = json.dumps(out).encode()
    text += b" " * (-len(text) % 8)
    (HERE / f"{net}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
