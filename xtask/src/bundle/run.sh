#!/usr/bin/env bash
# GPU tests and benchmarks of blemish, for a machine with an NVIDIA driver and nothing else.
#
#   ./run.sh test              every GPU test
#   ./run.sh sanitize [TOOL]   the tests under compute-sanitizer: memcheck, racecheck, initcheck, synccheck, or one of them
#   ./run.sh bench [WORD]...   timings as JSON; beside PyTorch's where a Python with it is found; words go to bin/gpu
#   ./run.sh tune [KERNEL]... times the variants of the kernels; `cargo xtask tune --import results/tune` takes the outcome
#   ./run.sh profile           each kernel under Nsight Compute (ncu)
#   ./run.sh all               test, sanitize, bench and profile, one after the other
#
# Each prints one JSON object and exits with 0 (passed or skipped), 1 (failed) or 2 (wrong use). Whatever the programs say goes to
# results/*.log. What is skipped says so on the error output; STRICT=1 makes it a failure. PYTHON, COMPUTE_SANITIZER and NCU
# name programs that are not in the PATH.
set -u -o pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here" || exit 2
results=${RESULTS:-$here/results}
mkdir -p "$results" || exit 2

skipped() { # WHAT WHY
  echo "SKIPPED: $1. $2" >&2
  printf '{"task":"%s","status":"skipped","why":"%s"}\n' "$1" "$2"
  [ "${STRICT:-0}" != 1 ]
}

gpu_here() { [ -e /dev/nvidiactl ] || [ -e /dev/dxg ] || nvidia-smi -L >/dev/null 2>&1; }

find_tool() { # NAME OVERRIDE
  if [ -n "$2" ]; then echo "$2"; return; fi
  command -v "$1" && return
  for at in /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer /opt/nvidia/nsight-compute/*; do
    [ -x "$at/$1" ] && { echo "$at/$1"; return; }
  done
}

# Runs every test program, behind the words given, and prints an entry for each.
programs() { # LOG-PREFIX WORD...
  local prefix=$1 first=1 worst=0 program log code passed failed skips start
  shift
  for program in bin/test-*; do
    log=$results/$prefix-$(basename "$program").log
    start=$SECONDS
    "$@" "$program" --test-threads=1 --nocapture >"$log" 2>&1
    code=$?
    passed=$(sed -n 's/^test result: .* \([0-9]*\) passed.*/\1/p' "$log" | tail -n 1)
    failed=$(sed -n 's/^test result: .* \([0-9]*\) failed.*/\1/p' "$log" | tail -n 1)
    # Those that want the stand-in driver of the emulator are not meant for here.
    skips=$(grep 'skipped: ' "$log" | grep -vc 'stand-in driver')
    [ "$code" = 0 ] || { worst=1; echo "FAILED: $program ($prefix), see $log" >&2; tail -n 25 "$log" >&2; }
    [ "$skips" = 0 ] || echo "SKIPPED: $skips tests of $program. $(sed -n 's/.*skipped: //p' "$log" | head -n 1)" >&2
    [ "$skips" = 0 ] || [ "${STRICT:-0}" != 1 ] || worst=1
    [ $first = 1 ] || printf ','
    first=0
    printf '{"program":"%s","exit":%d,"passed":%d,"failed":%d,"skipped":%d,"seconds":%d}' \
      "$(basename "$program")" "$code" "${passed:-0}" "${failed:-0}" "$skips" $((SECONDS - start))
  done
  return $worst
}

word() { # CODE LIST
  if [ "$1" != 0 ]; then echo failed
  elif [[ ${2-} == *'"skipped":'[1-9]* && $2 != *'"skipped":0,'* ]]; then echo skipped
  else echo passed; fi
}

task_test() {
  local list code
  # Where there is a GPU, a test that cannot use it has failed.
  if gpu_here; then export BLEMISH_REQUIRE_CUDA=1; fi
  list=$(programs test)
  code=$?
  printf '{"task":"test","status":"%s","programs":[%s]}\n' "$(word $code "$list")" "$list"
  return $code
}

task_sanitize() {
  local tool sanitizer list code worst=0 first=1 out=
  sanitizer=$(find_tool compute-sanitizer "${COMPUTE_SANITIZER:-}")
  [ -n "$sanitizer" ] || { skipped sanitize "compute-sanitizer is not here"; return; }
  gpu_here || { skipped sanitize "there is no GPU"; return; }
  export BLEMISH_REQUIRE_CUDA=1
  # Side by side: most of a checked program is the processor's work.
  for tool in ${1:-memcheck racecheck initcheck synccheck}; do
    (
      programs "$tool" "$sanitizer" --tool "$tool" --error-exitcode 99 --launch-timeout 120 >"$results/$tool.json"
      echo $? >"$results/$tool.code"
    ) &
  done
  wait
  for tool in ${1:-memcheck racecheck initcheck synccheck}; do
    list=$(cat "$results/$tool.json")
    code=$(cat "$results/$tool.code")
    [ "$code" = 0 ] || worst=1
    [ $first = 1 ] || out+=,
    first=0
    out+="{\"tool\":\"$tool\",\"status\":\"$(word "$code")\",\"programs\":[$list]}"
  done
  printf '{"task":"sanitize","status":"%s","tools":[%s]}\n' "$(word $worst)" "$out"
  return $worst
}

task_bench() {
  local python code=0 peers=null
  gpu_here || [ -n "${BLEMISH_DRIVER+set}" ] || { skipped bench "there is no GPU"; return; }
  bin/gpu --out "$results/gpu.json" "$@" 2>"$results/gpu.log" || { code=1; tail -n 25 "$results/gpu.log" >&2; }
  # Whole networks and flows, unless words ask for something else.
  echo null >"$results/networks.json"
  echo null >"$results/flows.json"
  if [ -x bin/gpu-backbone ] && [[ $# = 0 || " $* " == *network* ]]; then
    bin/gpu-backbone --out "$results/networks.json" 2>>"$results/gpu.log" || { code=1; tail -n 25 "$results/gpu.log" >&2; }
  fi
  if [ -x bin/gpu-flow ] && [[ $# = 0 || " $* " == *flow* ]]; then
    bin/gpu-flow --out "$results/flows.json" 2>>"$results/gpu.log" || { code=1; tail -n 25 "$results/gpu.log" >&2; }
  fi
  if [ $code = 0 ]; then
    python=$(find_tool python3 "${PYTHON:-}")
    if [ -n "$python" ]; then
      if "$python" peers/gpu_peers.py "$results/gpu.json" "$results/peers.json" "$results/networks.json" "$results/flows.json" >"$results/peers.md" 2>"$results/peers.log"; then
        cat "$results/peers.md" >&2
        peers=$(cat "$results/peers.json")
      else
        code=1
        tail -n 25 "$results/peers.log" >&2
      fi
    else
      echo "SKIPPED: the formulas of PyTorch. There is no python3." >&2
    fi
  fi
  printf '{"task":"bench","status":"%s","gpu":%s,"networks":%s,"flows":%s,"peers":%s}\n' "$(word $code)" \
    "$(cat "$results/gpu.json" 2>/dev/null || echo null)" "$(cat "$results/networks.json")" "$(cat "$results/flows.json")" "$peers"
  return $code
}

# The tests of the kernels in one file.
tests_of() {
  case $1 in
    nearest | pairwise) echo nearest:: ;;
    kcenter | projection) echo kcenter:: ;;
    mahalanobis | moments) echo mahalanobis:: ;;
    conv | depthwise | pool) echo network:: ;;
    product) echo product:: flow:: ;;
    window | norm) echo layer:: ;;
    blur | resize | embed) echo imaging:: ;;
  esac
}

task_tune() {
  local kernel variant out list= code=0 name running=0 most
  [ -d variants ] || [ -f variants.tar.gz ] || { skipped tune "the bundle has no variants"; return; }
  gpu_here || { skipped tune "there is no GPU"; return; }
  [ -d variants ] || tar xzf variants.tar.gz
  rm -rf "$results/tune" "$results/right"
  mkdir -p "$results/tune" "$results/right"
  most=$(nproc 2>/dev/null || echo 2)
  for kernel in ${*:-$(ls variants)}; do
    # Results first, several variants side by side: the tests load the variant in place of what is built in, and the driver keeps
    # what it made of it.
    for variant in variants/"$kernel"/*; do
      name=$kernel.$(basename "$variant")
      # shellcheck disable=SC2046
      (BLEMISH_PTX=$variant BLEMISH_REQUIRE_CUDA=1 bin/test-kernels-cuda --test-threads=1 $(tests_of "$kernel") \
        >"$results/right/$name.log" 2>&1 && touch "$results/right/$name") &
      running=$((running + 1))
      if [ "$running" -ge "$most" ]; then wait -n; running=$((running - 1)); fi
    done
    wait
    running=0
    for variant in variants/"$kernel"/*; do
      name=$kernel.$(basename "$variant")
      if [ ! -e "$results/right/$name" ]; then
        code=1
        echo "FAILED: the results of $variant are wrong, see $results/right/$name.log" >&2
        continue
      fi
      out=$results/tune/$name.json
      bin/gpu --size real --kernel "$kernel" --ptx "$variant" --out "$out" >>"$results/tune.log" 2>&1 ||
        { code=1; rm -f "$out"; echo "FAILED: $variant, see $results/tune.log" >&2; }
    done
  done
  list=$(ls "$results/tune" | sed 's/.*/"&"/' | paste -sd,)
  printf '{"task":"tune","status":"%s","files":[%s]}\n' "$(word $code)" "$list"
  return $code
}

task_profile() {
  local ncu code
  ncu=$(find_tool ncu "${NCU:-}")
  [ -n "$ncu" ] || { skipped profile "Nsight Compute (ncu) is not here"; return; }
  gpu_here || { skipped profile "there is no GPU"; return; }
  # The second launch of each kernel: the first one warms the caches and the clock.
  "$ncu" --csv --page raw --section SpeedOfLight --section Occupancy --section LaunchStats --section MemoryWorkloadAnalysis \
    --kernel-id '::regex:.*:2' --log-file "$results/ncu.csv" bin/gpu --repetitions 1 --out "$results/profiled.json" \
    >"$results/profile.log" 2>&1
  code=$?
  [ $code = 0 ] || tail -n 25 "$results/profile.log" >&2
  printf '{"task":"profile","status":"%s","file":"%s"}\n' "$(word $code)" "$results/ncu.csv"
  return $code
}

if command -v sha256sum >/dev/null; then
  sha256sum --check --quiet SHA256SUMS >&2 || { echo "error: files differ from SHA256SUMS" >&2; exit 1; }
fi
case ${1:-} in
  test | sanitize | bench | tune | profile)
    task=$1
    shift
    "task_$task" "$@"
    exit
    ;;
  all)
    worst=0
    for task in test sanitize bench profile; do "task_$task" || worst=1; done
    exit $worst
    ;;
  *)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
