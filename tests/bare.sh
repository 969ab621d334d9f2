#!/bin/sh
# Try a wheel where nothing else of this project is: tests/bare.sh PYTHON WHEEL FOLDER (the folder is made anew).
# Judging needs no torch, so that this takes a minute and 110 MB. Run by `make release-check`.
set -eu
python=$1 wheel=$(realpath "$2") folder=$3
needs=$(realpath "$(dirname "$0")/../docs/examples/requirements-judging.txt")
rm -rf "$folder"
mkdir -p "$folder/empty"
folder=$(realpath "$folder")
"$python" -m venv "$folder/venv"
bin=$folder/venv/bin
"$bin/python" -m pip install --disable-pip-version-check --quiet --no-deps "$wheel"
"$bin/python" -m pip install --disable-pip-version-check --quiet --no-warn-conflicts -r "$needs"
cd "$folder/empty"
unset PYTHONPATH
export QEVAL_CACHE_DIR="$folder/cache"
say() { printf '+ %s\n' "$*"; "$@"; }
say "$bin/qeval" --version
say "$bin/qeval" run --model toy --schemes fp16,gptq --suite demo > run.txt 2>&1 || { cat run.txt; exit 1; }
say "$bin/qeval" report -o report.md
say "$bin/qeval" gate --max-drop 30 > gate.txt || { cat gate.txt; exit 1; }
say "$bin/qeval" --help > help.txt
grep -q 'qeval gate' help.txt
say "$bin/qeval" show > show.txt
grep -q 'qeval_prose' show.txt
say "$bin/qeval" list suites > suites.txt
grep -q leaderboard-v1 suites.txt
grep -q 'qeval_facts' report.md
# A policy and the sizes of tasks lie in the wheel. Without torch no scheme is ready.
say "$bin/qeval" plan --suite leaderboard-v1 --policy leaderboard-v1 > plan.txt
grep -q 14042 plan.txt
say "$bin/qeval" doctor > doctor.txt
grep -q 'needs torch, transformers' doctor.txt
say "$bin/qeval" list schemes > schemes.txt
if grep -q 'here: ready' schemes.txt; then exit 1; fi
# Where a package is missing, the command that installs it is for this wheel.
"$bin/python" -c 'from qeval.base import installed; print(installed.remedy("bnb"))' | tee remedy.txt
grep -q 'qeval\[bnb\] @ file://.*\.whl' remedy.txt
echo "The wheel works by itself."
