#!/bin/sh
# Builds llama.cpp's perplexity tool from the source in the sdist of llama-cpp-python, and holds qeval against it.
#   tests/llamacpp.sh PYTHON [FOLDER]
# A test that is skipped is a failure here. FOLDER keeps the source and the build for the next time.
set -eu
python=$1
folder=${2:-build/llamacpp}
mkdir -p "$folder"
if ! ls "$folder"/llama_cpp_python-*/vendor/llama.cpp/CMakeLists.txt >/dev/null 2>&1; then
    "$python" -m pip download --no-deps --no-binary :all: -d "$folder" llama-cpp-python==0.3.36
    tar -xzf "$folder"/llama_cpp_python-*.tar.gz -C "$folder"
fi
source=$(ls -d "$folder"/llama_cpp_python-*/vendor/llama.cpp)
cmake -S "$source" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF >/dev/null
cmake --build "$folder/build" --target llama-perplexity llama-quantize
report=$(QEVAL_LLAMACPP="$(cd "$folder" && pwd)/build/bin" "$python" -m pytest -q -rs tests/score/fidelity/test_llama_cpp.py) || {
    echo "$report"
    exit 1
}
echo "$report"
if echo "$report" | grep -q skipped; then
    echo "A test was skipped: it would have proved nothing." >&2
    exit 1
fi
