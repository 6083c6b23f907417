# What ./quickstart and ./check share: setting up, configuring and building the release preset. Sourced, not run.
# shellcheck shell=bash
# FL_BUILD_DIR names another build folder than build/release.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${FL_BUILD_DIR:-$root/build/release}
if [[ $build != /* ]]; then build=$PWD/$build; fi
options=()
program=$(basename "$0")

say() { printf '%s: %s\n' "$program" "$*"; }
minutes() { printf '%d.%d min' $(($1 / 60)) $(($1 % 60 / 6)); }

# read_options ARG...: fills `options` with the cmake options; relative folders in them become absolute, as cmake wants them.
read_options() {
  local option folder value
  local -a folders
  for option in "$@"; do
    case $option in
      -h | --help)
        sed -n '2,/^set -/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
      -DCMAKE_PREFIX_PATH=* | -DCMAKE_PREFIX_PATH:*=* | -DTorch_DIR=* | -DTorch_DIR:*=*)
        IFS=';' read -ra folders <<< "${option#*=}"
        value=''
        for folder in "${folders[@]}"; do
          if [[ -d $folder ]]; then folder=$(cd "$folder" && pwd); fi
          value+=${value:+;}$folder
        done
        options+=("${option%%=*}=$value")
        ;;
      -D?*) options+=("$option") ;;
      *)
        say "unknown argument '$option': expected cmake options such as -DCMAKE_PREFIX_PATH=/path/to/libtorch" >&2
        exit 2
        ;;
    esac
  done
}

# Compilers to run at once: one a core, but no more than memory allows. A file with LibTorch's headers takes 1.2 GB.
jobs() {
  local cores kilobytes limit
  cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
  kilobytes=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo 2>/dev/null || true)
  limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || true)
  if [[ $limit =~ ^[0-9]+$ ]] && ((limit / 1024 < ${kilobytes:-limit})); then kilobytes=$((limit / 1024)); fi
  if [[ -n $kilobytes ]] && ((kilobytes / 1300000 < cores)); then cores=$((kilobytes / 1300000)); fi
  echo $((cores > 0 ? cores : 1))
}

# Passes a build's or a test run's output on. On a terminal ninja rewrites one line by itself; elsewhere one line in every
# tenth of the work is enough, and what is not progress (warnings, errors, failed tests) passes whole.
condense() {
  local line tenth last=-1
  while IFS= read -r line || [[ -n $line ]]; do
    # "[12/97] Building …" of ninja and " 12/812 Test #12: … Passed" of ctest; 10# because 08 would be octal.
    if [[ $line =~ ^\ *\[?\ *([0-9]{1,6})/([0-9]{1,6})(\]|\ Test\ +#) && $line != *'***'* ]]; then
      tenth=$((10 * 10#${BASH_REMATCH[1]} / (10#${BASH_REMATCH[2]} + 1)))
      if ((tenth == last)); then continue; fi
      last=$tenth
    elif [[ $line =~ ^\ +Start\ +[0-9]+: ]]; then
      continue
    fi
    printf '%s\n' "$line"
  done
}

# Warnings are errors with the compiler and libraries that every change is tested with; elsewhere they are only shown.
warnings_are_errors() {
  local version
  version=$("${CXX:-c++}" -dumpversion 2>/dev/null || true)
  if [[ ${version%%.*} == 12 && ${#options[@]} == 0 ]]; then echo ON; else echo OFF; fi
}

# Configures the build folder. cmake remembers where it found LibTorch, so other options than last time start afresh.
configure() {
  local stamp=$build/fl_options.txt log=$build/configure.log start=$SECONDS
  local -a command=(cmake --preset release -B "$build" "-DFL_WERROR=$(warnings_are_errors)" "${options[@]}")
  mkdir -p "$build"
  if [[ ! -f $stamp || $(< "$stamp") != "${options[*]}" ]]; then
    # Gone until cmake has succeeded, so that an interrupted change of options is repeated and not half kept.
    rm -f "$stamp"
    command+=(--fresh)
  fi
  if ! (cd "$root" && "${command[@]}") > "$log" 2>&1 < /dev/null; then
    cat "$log" >&2
    say "cmake could not configure (all it said is above and in $log)" >&2
    exit 3
  fi
  printf '%s' "${options[*]}" > "$stamp.new"
  mv "$stamp.new" "$stamp"
  say "configured in $(minutes $((SECONDS - start))), $(sed -n 's/^-- \(LibTorch .*\)/\1/p' "$log")"
}

# build_target TARGET...
build_target() {
  local start=$SECONDS
  local -a command=(cmake --build "$build" -j "$(jobs)" --target "$@")
  say "building $* (the first time takes minutes)"
  if [[ -t 1 ]]; then "${command[@]}" < /dev/null; else "${command[@]}" < /dev/null 2>&1 | condense; fi
  say "built in $(minutes $((SECONDS - start)))"
}

# bootstrap: what the machine lacks.
bootstrap() {
  local start=$SECONDS
  "$root/third_party/bootstrap" "${options[@]}"
  say "machine ready in $(minutes $((SECONDS - start)))"
}
