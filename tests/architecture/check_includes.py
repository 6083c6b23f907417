#!/usr/bin/env python3
"""Reads every #include of the tree and fails on an edge that ARCHITECTURE.md does not allow.

    check_includes.py ROOT         the self-test, then the tree under ROOT
    check_includes.py --self-test  plants one violation of each kind in a small tree and expects to find exactly it

Prints "file:line: what, why" for each violation. Exit code 0: none; 1: at least one; 2: wrong command line.
"""
import re
import sys
import tempfile
from pathlib import Path

# Who may include whom. `client` and `aggregator` never see each other, and only the users of simulations see them.
ROOMS = {
    "fl_core": {"fl_core"},
    "privacy": {"fl_core", "privacy"},
    "client": {"fl_core", "privacy", "client"},
    "aggregator": {"fl_core", "privacy", "aggregator"},
    "simulations": {"fl_core", "privacy", "client", "aggregator", "simulations"},
    "benchmarks": {"fl_core", "privacy", "client", "aggregator", "simulations", "benchmarks"},
    "tests": {"fl_core", "privacy", "client", "aggregator", "simulations", "benchmarks", "tests"},
}
HEADERS = {".h", ".hpp"}
SOURCES = HEADERS | {".cpp", ".cc", ".cxx", ".inl"}

TORCH_FILES = (r"fl_core/ml/(torch_(max_pool|model|accelerator|resident)\.\w+|architecture_model\.\w+|ghost_\w+\.\w+|torch_runtime\.cpp|modules/.*)|tests/ml/.*"
               r"|benchmarks/scenarios/.*")
# Who may include the net folders: they themselves, the health server, and the programs.
NET_USERS = r"(^|/)(net|web)/|^(aggregator|client)/(main|\w+_config)\.(cpp|h)$|^simulations/cli/"
# Library, its headers, the files that may include them, why. A file of tests/ may include what the file it mirrors may.
LIBRARIES = [
    ("LibTorch", r"(torch|ATen|c10|caffe2)/", TORCH_FILES,
     "one LibTorch header costs 17 s and 1.1 GB to compile; the rest works on std::span<float>"),
    ("OpenSSL", r"openssl/", r"fl_core/base/sha256\.cpp|fl_core/net/.*|privacy/.*|tests/net(_support/net)?/.*|benchmarks/.*",
     "cryptography lives in fl_core/base/sha256.cpp, fl_core/net and privacy"),
    ("Boost", r"boost/", r"(.*/)?net/.*|aggregator/web/.*|benchmarks/scenarios/.*", "Boost belongs under net/ and aggregator/web"),
    ("SQLite", r"sqlite3(ext)?\.h$", r"aggregator/store/.*|tests/aggregator/.*",
     "the journal hides its database behind aggregator/store"),
    ("zlib", r"(zlib|zconf)\.h$", r"fl_core/ml/datasets/.*|tests/support/.*", "only the data sets read compressed files"),
    ("MPI", r"mpi\.h$", r"simulations/mpi/mpi_session\.cpp", "all but one file sees a Communicator, so that tests and machines can do without MPI"),
    ("CLI11", r"CLI/", r"simulations/cli/.*|(aggregator|client)/main\.cpp|benchmarks/scenarios/.*", "only programs parse a command line"),
    ("GoogleTest", r"(gtest|gmock)/", r"tests/.*", "programs do not depend on the test library"),
    ("Google Benchmark", r"benchmark/", r"benchmarks/.*", "programs do not depend on the benchmark library"),
]
# Header, the headers that may include it all the same, why not: a header passes its cost on to all who include it.
HEAVY_IN_HEADERS = [
    ("torch/torch.h", r"fl_core/ml/torch_(model|accelerator|resident)\.h", "include the parts that the header shows, or forward-declare"),
    ("boost/asio.hpp", r"(?!)", "include the parts that are used"),
    ("nlohmann/json.hpp", r"(?!)", "nlohmann/json_fwd.hpp is enough for a header that holds no JSON value"),
]
# A member, or an element of a container: only then does a header need the whole of nlohmann/json.
HOLDS_JSON = re.compile(r"\bnlohmann::json\s+\w+\s*[;={]|<[^<>;]*\bnlohmann::json\s*[,>]")
FORBIDDEN_WORDS = [
    (r"\bstd::\w+_distribution\b", "standard libraries differ in their distributions; draw with fl::Rng"),
    (r"\bstd::random_device\b", "every random number comes from fl::Rng, keyed by the experiment's seed"),
    (r"\bstd::s?rand\b", "every random number comes from fl::Rng, keyed by the experiment's seed"),
]

COMMENT_OR_STRING = re.compile(
    r'//[^\n]*|/\*.*?\*/|(?P<raw>R"(?P<mark>[^(\s"]*)\(.*?\)(?P=mark)")'
    r"|(?P<text>\"(?:\\.|[^\"\\\n])*\"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])*')", re.DOTALL)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)


def blanked(source, keep_text):
    """The source without comments and raw strings, lines kept in place; without other strings too unless keep_text."""
    def blank(match):
        return match.group() if keep_text and match.group("text") else re.sub(r"[^\n]", " ", match.group())
    return COMMENT_OR_STRING.sub(blank, source)


def line_of(source, position):
    return source.count("\n", 0, position) + 1


class File:
    """One source file: path relative to the root, and its includes as (line, is_quoted, name)."""

    def __init__(self, root, path):
        self.path = path
        self.room = path.split("/")[0]
        self.is_header = Path(path).suffix in HEADERS
        source = (root / path).read_text(encoding="utf-8")
        code = blanked(source, keep_text=True)
        self.includes = [(line_of(code, m.start(1)), m.group(1) == '"', m.group(2)) for m in INCLUDE.finditer(code)]
        self.words = blanked(source, keep_text=False)


def may_use(path, allowed):
    return any(re.fullmatch(allowed, name) for name in {path, path.removeprefix("tests/")})


def check_room(file, name):
    """An include of one of our own files."""
    room = name.split("/")[0]
    if room not in ROOMS[file.room]:
        return f"{file.room} may include only {', '.join(sorted(ROOMS[file.room]))}"
    # Sockets: rooms are split into a part that knows them (net, web) and one that does not.
    net = re.search(r"(^|/)net/", name)
    if net and file.room == "simulations" and not file.path.startswith("simulations/cli/"):
        return "a simulation has no network"
    if net and file.room not in ("tests", "benchmarks") and not re.search(NET_USERS, file.path):
        return "only the net folders, aggregator/web and the programs know the network"
    return None


def check_library(file, name):
    for library, headers, allowed, why in LIBRARIES:
        if re.match(headers, name) and not may_use(file.path, allowed):
            return f"{library} is not for this file: {why}"
    for heavy, excepted, why in HEAVY_IN_HEADERS:
        if not file.is_header or name != heavy or re.fullmatch(excepted, file.path):
            continue
        if heavy != "nlohmann/json.hpp" or not HOLDS_JSON.search(file.words):
            return f"too heavy for a header: {why}"
    return None


def show_torch(files):
    """The headers that pass LibTorch on to whoever includes them, directly or through another header."""
    shown = {f.path for f in files.values() if f.is_header and any(re.match(LIBRARIES[0][1], n) for _, _, n in f.includes)}
    while True:
        more = {f.path for f in files.values() if f.is_header and any(n in shown for _, _, n in f.includes)} - shown
        if not more:
            return shown
        shown |= more


def check_file(file, files, torch_headers):
    """Yields (line, what, why) for each violation in one file."""
    if file.is_header and not re.search(r"^[ \t]*#[ \t]*pragma[ \t]+once\b", file.words, re.MULTILINE):
        yield 1, "no #pragma once", "every header has it"
    for line, quoted, name in file.includes:
        what = f'#include "{name}"' if quoted else f"#include <{name}>"
        ours = name.split("/")[0] in ROOMS
        if quoted and not ours:
            yield line, what, "a quoted include starts at the root of the tree, libraries go in <>"
        elif quoted and name not in files:
            yield line, what, "there is no such file"
        elif ours and not quoted:
            yield line, what, "our own headers go in quotes"
        elif quoted and (why := check_room(file, name)):
            yield line, what, why
        elif quoted and name in torch_headers and not may_use(file.path, TORCH_FILES):
            yield line, what, f"it shows LibTorch: {LIBRARIES[0][3]}"
        elif why := check_library(file, name):
            yield line, what, why
    for pattern, why in FORBIDDEN_WORDS:
        for match in re.finditer(pattern, file.words):
            yield line_of(file.words, match.start()), match.group(), why


def check_tree(root):
    """All violations under root as "file:line: what, why", and the number of files read."""
    paths = [p.relative_to(root).as_posix() for room in ROOMS for p in sorted((root / room).rglob("*"))
             if p.suffix in SOURCES and p.is_file()]
    files = {path: File(root, path) for path in paths}
    torch_headers = show_torch(files)
    found = [f"{f.path}:{line}: {what}, {why}" for f in files.values()
             for line, what, why in sorted(check_file(f, files, torch_headers))]
    return found, len(files)


# A tree that keeps every rule, with the exceptions that the rules grant and with decoys in comments and strings.
CLEAN = {
    "fl_core/base/sha256.cpp": "#include <openssl/evp.h>\n",
    "fl_core/base/error.h": '#pragma once\n#include <string>\n// #include "client/session.h"\n',
    "fl_core/config/reader.h": "#pragma once\n#include <nlohmann/json_fwd.hpp>\n",
    "fl_core/config/values.h": "#pragma once\n#include <nlohmann/json.hpp>\nstruct Values {\n  nlohmann::json model;\n};\n",
    "fl_core/config/reader.cpp": '#include "fl_core/config/reader.h"\n\n#include <nlohmann/json.hpp>\n',
    "fl_core/ml/torch_model.h": "#pragma once\n#include <torch/torch.h>\n",
    "fl_core/ml/torch_runtime.cpp": "#include <ATen/Parallel.h>\n",
    "fl_core/ml/modules/lstm.cpp": '#include "fl_core/ml/torch_model.h"\n',
    "fl_core/ml/datasets/idx.cpp": "#include <zlib.h>\n",
    "fl_core/net/stream.h": "#pragma once\n#include <boost/asio/ip/tcp.hpp>\n#include <openssl/ssl.h>\n",
    "privacy/noise/gaussian.cpp": '#include <openssl/rand.h>\n#include "fl_core/base/error.h"\n',
    "client/session.h": '#pragma once\n#include "fl_core/base/error.h"\n',
    "client/net/connection.cpp": '#include <boost/asio/read.hpp>\n#include "fl_core/net/stream.h"\n',
    "aggregator/engine/round.h": '#pragma once\n/* #include <torch/torch.h>\n std::rand */\n',
    "aggregator/store/journal.cpp": "#include <sqlite3.h>\n",
    "aggregator/web/page.cpp": '#include <boost/beast/http.hpp>\n#include "fl_core/net/stream.h"\n',
    "simulations/run.h": '#pragma once\n#include "client/session.h"\n#include "aggregator/engine/round.h"\n',
    "simulations/cli/main.cpp": '#include <CLI/CLI.hpp>\n#include "simulations/run.h"\n',
    "benchmarks/micro/sum.cpp": '#include <benchmark/benchmark.h>\n#include "simulations/run.h"\n',
    "benchmarks/scenarios/loop.cpp": "#include <torch/torch.h>\n",
    "tests/ml/model_test.cpp": '#include <gtest/gtest.h>\n#include "fl_core/ml/torch_model.h"\n',
    "tests/support/folder.h": "#pragma once\n",
    "tests/fl_core/ml/datasets/idx_test.cpp": "#include <zlib.h>\n",
    "tests/simulations/run_test.cpp": '#include "simulations/run.h"\nconst char* s = "std::rand()";\nint n = 1\'000;\n'
                                      'const char* r = R"(\n#include "nowhere.h"\n)";\nint accuracy_distribution();\n',
}

# File to replace, its content, the line that must be reported, a part of the message.
PLANTED = [
    ("fl_core/round/a.cpp", '\n#include "client/session.h"\n', 2, "fl_core may include only fl_core"),
    ("fl_core/round/a.cpp", '#include "aggregator/engine/round.h"\n', 1, "fl_core may include only"),
    ("fl_core/round/a.cpp", '#include "simulations/run.h"\n', 1, "fl_core may include only"),
    ("privacy/a.cpp", '#include "client/session.h"\n', 1, "privacy may include only"),
    ("client/a.cpp", '#include "aggregator/engine/round.h"\n', 1, "client may include only"),
    ("client/a.cpp", '#include "simulations/run.h"\n', 1, "client may include only"),
    ("aggregator/a.cpp", '#include "client/session.h"\n', 1, "aggregator may include only"),
    ("client/a.cpp", '#include "fl_core/net/stream.h"\n', 1, "only the net folders"),
    ("aggregator/engine/a.cpp", '#include "fl_core/net/stream.h"\n', 1, "only the net folders"),
    ("fl_core/wire/a.cpp", '#include "fl_core/net/stream.h"\n', 1, "only the net folders"),
    ("simulations/a.cpp", '#include "fl_core/net/stream.h"\n', 1, "no network"),
    ("fl_core/ml/model.cpp", "#include <torch/nn.h>\n", 1, "LibTorch is not for this file"),
    ("client/a.cpp", "# include <ATen/ATen.h>\n", 1, "LibTorch is not for this file"),
    ("simulations/cli/a.cpp", "#include <c10/util/Half.h>\n", 1, "LibTorch is not for this file"),
    ("fl_core/ml/torch_runtime.h", "#pragma once\n#include <ATen/Parallel.h>\n", 2, "LibTorch is not for this file"),
    ("client/a.cpp", '#include "fl_core/ml/torch_model.h"\n', 1, "it shows LibTorch"),
    ("tests/contracts/a_test.cpp", '#include "fl_core/ml/torch_model.h"\n', 1, "it shows LibTorch"),
    ("client/a.cpp", "#include <openssl/evp.h>\n", 1, "OpenSSL is not for this file"),
    ("aggregator/engine/a.cpp", "#include <boost/asio/ip/tcp.hpp>\n", 1, "Boost is not for this file"),
    ("aggregator/engine/a.cpp", "#include <sqlite3.h>\n", 1, "SQLite is not for this file"),
    ("fl_core/base/a.cpp", "#include <zlib.h>\n", 1, "zlib is not for this file"),
    ("simulations/a.cpp", "#include <mpi.h>\n", 1, "MPI is not for this file"),
    ("client/a.cpp", "#include <CLI/CLI.hpp>\n", 1, "CLI11 is not for this file"),
    ("client/a.cpp", "#include <gtest/gtest.h>\n", 1, "GoogleTest is not for this file"),
    ("client/a.cpp", "#include <benchmark/benchmark.h>\n", 1, "Google Benchmark is not for this file"),
    ("fl_core/ml/modules/a.h", "#pragma once\n#include <torch/torch.h>\n", 2, "too heavy for a header"),
    ("fl_core/net/a.h", "#pragma once\n#include <boost/asio.hpp>\n", 2, "too heavy for a header"),
    ("fl_core/config/a.h", "#pragma once\n#include <nlohmann/json.hpp>\nnlohmann::json read(const nlohmann::json&);\n", 2,
     "too heavy for a header"),
    ("client/a.cpp", "\n\nstd::normal_distribution<float> d;\n", 3, "std::normal_distribution"),
    ("tests/client/a_test.cpp", "std::random_device device;\n", 1, "std::random_device"),
    ("client/a.cpp", "int n = std::rand();\n", 1, "std::rand"),
    ("client/a.cpp", "/* one\ntwo */ int n = 1'000; auto d = std::rand();\n", 2, "std::rand"),
    ("client/a.h", "// #pragma once\nint n();\n", 1, "no #pragma once"),
    ("client/a.cpp", '#include "session.h"\n', 1, "starts at the root"),
    ("client/a.cpp", '#include "client/gone.h"\n', 1, "there is no such file"),
    ("client/a.cpp", "#include <client/session.h>\n", 1, "go in quotes"),
    ("client/a.cpp", '#include "tests/support/folder.h"\n', 1, "client may include only"),
]


def write_tree(root, tree):
    for path, content in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")


def findings_of(tree):
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder), tree)
        return check_tree(Path(folder))[0]


def self_test():
    """The list of what went wrong; empty when every planted violation, and nothing else, is found."""
    failures = [f"clean tree: unexpected {finding}" for finding in findings_of(CLEAN)]
    for path, content, line, part in PLANTED:
        found = findings_of({**CLEAN, path: content})
        if len(found) != 1 or not found[0].startswith(f"{path}:{line}: ") or part not in found[0]:
            failures.append(f"{path} with {content!r}: expected one finding on line {line} with '{part}', got {found}")
    # A header that hides LibTorch behind another one is seen through: its includer is reported.
    through = findings_of({**CLEAN, "tests/ml/all.h": '#pragma once\n#include "fl_core/ml/torch_model.h"\n',
                           "tests/client/a_test.cpp": '#include "tests/ml/all.h"\n'})
    if len(through) != 1 or not through[0].startswith('tests/client/a_test.cpp:1: #include "tests/ml/all.h", it shows'):
        failures.append(f"LibTorch behind two headers: {through}")
    return failures


def main(arguments):
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    failures = self_test()
    if failures:
        print("\n".join(f"self-test: {failure}" for failure in failures))
        return 1
    print(f"self-test: found each of {len(PLANTED) + 1} planted violations")
    if arguments[0] == "--self-test":
        return 0
    found, count = check_tree(Path(arguments[0]).resolve())
    if count == 0:
        found = [f"{arguments[0]}: no source file in {', '.join(ROOMS)}"]
    print("\n".join(found) if found else f"architecture: {count} files, no forbidden include")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
