#!/usr/bin/env bash
# Run tests/bench/card.py on a machine that has torch, transformers and a card, but not diffii's other packages.
# Those may lie as wheels in .whl/ at the root of the repository; nothing is downloaded and nothing stays installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3}

if compgen -G '.whl/*.whl' >/dev/null; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir \
        --upgrade --target "$site" .whl/*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi

export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false TRANSFORMERS_VERBOSITY=error
"$python" -m tests.bench.card "$@"
