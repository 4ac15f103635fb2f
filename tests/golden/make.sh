#!/usr/bin/env bash
# Writes what is golden since commits b5595cf, 39e88b7 and ea5baa1, into an empty folder: make.sh FOLDER.
set -euo pipefail
golden=$(cd "$(dirname "$0")" && pwd)
mkdir "$1" && cd "$1"
cp -r "$golden/run" run
for format in openvino executorch litert; do
    counterpoise export run --to $format --images 50 --out $format
    # The runner is in onnx/, and longer than all the rest.
    python -c 'import json, pathlib; p = pathlib.Path("'$format'/export.json"); e = json.loads(p.read_text())
del e["files"]["run.py"]; p.write_text(json.dumps(e, indent=2) + "\n")'
    rm $format/run.py
done
python - <<'PYTHON'
from pathlib import Path

import numpy
from PIL import Image

chance = numpy.random.default_rng(0)
for number in range(3):
    for half in ("train", "val")[: 1 + (number == 0)]:
        for kind, channels in (("images", (3,)), ("masks", ())):
            folder = Path("scenes", kind, half)
            folder.mkdir(parents=True, exist_ok=True)
            pixels = chance.integers(0, 256 if channels else 3, (8, 8, *channels), dtype="uint8")
            Image.fromarray(pixels).save(folder / f"{number}.png")
Path("scenes", "classes.txt").write_text("void 0 0 0\ncell 200 0 0\nnerve 0 200 0\n")
PYTHON
counterpoise pack scenes --out pack --shards 1
counterpoise promise run --risk 0.95 --device cpu
cp "$golden/search/search.yaml" .
counterpoise search search.yaml --no-final
cat > fit.yaml <<'YAML'
data: {source: digits, options: {train_size: 100}, views: {crop: none, flip: false}, workers: 0}
objective: {cross_entropy: {weight: 1.0}}
student: {model: digits/cnn_4_8}
train: {epochs: 1, batch_size: 50, precision: fp32, device: cpu}
YAML
counterpoise fit fit.yaml --budget "latency<=50ms" --runtime onnx --students digits/cnn_4_8 --rounds 6 --seconds 0.01 --out fit
