"""The core without torch: with its import blocked, and where it is not installed."""

import json
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from helpers import need, small_llama
from zoo.cases import CASES

import sparsity_report as sr
from sparsity_report.weights import torch_extra

ROOT = Path(__file__).parents[1]
# Steps with the names of the paths; `study` and `pair` are files, `out` is a folder.
HEAD = """
import sys
from pathlib import Path

BLOCKED = {"torch", "transformers", "gguf", "numba", "llvmlite", "safetensors", "scipy"}
DRAWING = {"typst", "vl_convert"}
BLOCKED |= DRAWING

class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name.partition(".")[0])

if "--block" in sys.argv:
    sys.meta_path.insert(0, Blocker)
study, pair, out = map(Path, sys.argv[1:4])

def command(*words, code=0):
    from sparsity_report.cli import main
    sys.argv = ["sparsity-report", *map(str, words)]
    try:
        main()
    except SystemExit as leaving:
        assert leaving.code == code, (words, leaving.code)

import sparsity_report as sr
"""
TEXT = """
command("--help")
loaded, two = sr.read_study(study), sr.read_study(pair)
track = sr.read_study(study.with_name("zeros.jsonl"))
for value in (loaded, two, track):
    assert sr.summarize(value)
    assert repr(value)
    assert value.save(out / "again.json").is_file()
for name in "layers groups totals storage audit facts".split():
    getattr(loaded, name)
for name in "matches removed survival changes groups totals facts".split():
    getattr(two, name)
assert len(loaded.pivot("sparsity")) > 1
assert loaded.at_level(0.5)["nonzero"].sum() > 0
assert sr.write_csv(loaded, out / "csv")
assert sr.summarize(loaded) != sr.summarize(two)
command("render", study, "--write", "csv", "--out", out / "tables")
command("render", study.with_name("zeros.jsonl"), "--write", "csv", "--out", out / "track")
demo = Path(sr.__file__).with_name("demo")
command("count", demo, "--json")
command("check", demo, "--zeros", "<=1%", "--no-nan")
command("check", demo, "--zeros", ">=50%", code=1)
command("check", out / "nothing", "--no-nan", code=2)
command("run", "--sparsity", "0.3", "--out", out / "run", "--write", "csv")
command("prune", "--sparsity", "0.3", "--out", out / "pruned")
command("pair", demo, out / "pruned", "--out", out / "pair.json")
assert sr.check(demo, zeros=">=50%").violations
import os
assert "TRANSFORMERS_VERBOSITY" not in os.environ
"""
WIDGETS = """
sr.explore(loaded).select(sparsity=0.6)
assert sr.explore(two).state["metric"] == sr.explore(track).state["metric"]
"""
PAGES = """
assert not DRAWING & {*sys.modules}, DRAWING & {*sys.modules}
BLOCKED -= DRAWING
command("render", study, "--write", "html,pdf", "--out", out / "pages")
assert sr.write_report(two, out / "pair.html").stat().st_size > 10_000
"""
PAPER = """
for value, name in ((loaded, "study"), (two, "pair"), (track, "kit")):
    assert sr.write_thesis(value, out / name)
assert sr.write_report(two, out / "pair.pdf").stat().st_size > 10_000
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A study, a pair and a log, as files."""
    folder = tmp_path_factory.mktemp("saved")
    weights = sr.load()
    pruning = sr.global_magnitude(weights, sparsity=0.3)
    variants = sr.dense(weights), sr.masked(pruning), sr.csr(pruning)
    sr.compare(*variants, patterns=True).save(folder / "study.json")
    sr.compare_checkpoints(weights, pruning).save(folder / "pair.json")
    sr.track(sr.masked(pruning).module(), every=1, log=folder / "zeros.jsonl").step()
    return folder


def process(*line, cwd):
    """Run Python with its installed packages only; ours imports the package that is tested."""
    path = str(Path(sr.__file__).parents[1]) if line[:2] == (sys.executable, "-c") else ""
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [*map(str, line)], capture_output=True, text=True, cwd=cwd, env=environment
    )


def run(python, script, saved, out, *options):
    files = saved / "study.json", saved / "pair.json"
    done = process(python, "-c", script, *files, out, *options, cwd=out)
    assert done.returncode == 0, done.stderr[-3000:]


def test_saved_values_need_no_library_that_reads_or_measures_models(saved, tmp_path):
    """Drawing loads when something is drawn, not before."""
    run(sys.executable, HEAD + TEXT + WIDGETS + PAGES + PAPER, saved, tmp_path, "--block")
    assert {path.name for path in (tmp_path / "pages").iterdir()} >= {"report.html", "report.pdf"}


FIGURES = """
for path in sys.argv[4:]:
    try:
        weights = sr.load(path)
        pruning = sr.global_magnitude(weights, 0.3)
        layers = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning)).layers
        print(layers.to_json())
    except sr.SparsityReportError as error:
        print(error)
"""


def test_figures_are_equal_with_and_without_torch(tmp_path):
    """Of undecided files, and of one whose tensors are not those of its class, a line says so."""
    folders = [tmp_path / str(number) for number in range(len(CASES))]
    for case, folder in zip(CASES, folders, strict=True):
        case.build().save_pretrained(folder)
    line = [sys.executable, "-c", HEAD + FIGURES, "", "", "", *folders]
    without, known = (
        process(*line[:6], *option, *folders, cwd=tmp_path).stdout.splitlines()
        for option in (["--block"], ["--all"])
    )
    equal = [left == right for left, right in zip(without[1:], known[1:], strict=True)]
    undecided = [text for text in without[1:] if "[torch]" in text and "--by-names" in text]
    assert sum(equal) + len(undecided) == len(CASES)
    assert sum(equal) > len(CASES) // 3


REFUSED = [
    "run --policy magntude", "run --policy 2:4 --sparsity 0.3", "run --sparsity 1.5",
    "run no.gguf", "run --keep-experts x", "render no.json", "count no.safetensors",
    "check no.bin", "check m --zeros 5x", "pair no.bin m", "prune no.bin -o p",
    "expand no.bin -o p", "explore no.bin", "explore --policy x", "notebook no.bin",
    "notebook --out x.txt",
]  # fmt: skip


def test_bad_options_and_paths_are_refused_before_libraries_load(tmp_path):
    script = f"""{HEAD}
BLOCKED |= {{"numpy", "pandas", "huggingface_hub", "jinja2"}}
for words in {REFUSED}:
    command(*words.split(), code=2)
"""
    done = process(sys.executable, "-c", script, "", "", "", "--block", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(REFUSED)
    assert all(line.startswith("sparsity-report: ") for line in lines)
    assert "not installed" not in done.stderr


@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "num_hidden_layers"])
def test_contradictory_configurations_are_refused_alike_without_torch(key, tmp_path):
    small_llama().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: config[key] + 1}))
    line = [sys.executable, "-c", HEAD + FIGURES, "", "", ""]
    without, known = (
        process(*line, *option, tmp_path, cwd=tmp_path).stdout.splitlines()[-1]
        for option in (["--block"], ["--all"])
    )
    said = f"{key} is {config[key] + 1} in config.json but {config[key]} in the tensors; download"
    assert without == known
    assert said in known


ADAPTED = """
weights = sr.load(sys.argv[4], base=sys.argv[5])
pruning = sr.global_magnitude(weights, 0.3)
print(pruning.threshold, sr.compare(sr.dense(weights), sr.masked(pruning)).layers.to_json())
"""


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers the old way
def test_merged_adapters_have_equal_figures_without_torch(tmp_path):
    peft = pytest.importorskip("peft")
    small_llama().save_pretrained(tmp_path / "base")
    base = type(small_llama()).from_pretrained(tmp_path / "base")
    options = {"target_modules": ["q_proj"], "init_lora_weights": False}
    peft.get_peft_model(base, peft.LoraConfig(r=2, **options)).save_pretrained(tmp_path / "lora")
    line = [sys.executable, "-c", HEAD + ADAPTED, "", "", "", tmp_path / "lora", tmp_path / "base"]
    without, known = (process(*line, *more, cwd=tmp_path).stdout for more in (["--block"], []))
    assert without == known != ""


def test_tokenizer_of_gguf_needs_transformers_and_says_so(smollm2_path, tmp_path):
    script = (
        f"{HEAD}BLOCKED.remove('gguf')\ncommand('prune', sys.argv[4], '--policy', '2:4', '-o', out)"
    )
    line = [sys.executable, "-c", script, "", "", tmp_path / "p", smollm2_path, "--block"]
    done = process(*line, cwd=tmp_path)
    assert done.stderr.startswith("sparsity-report: no tokenizer is written: ")
    assert "pip install torch" in done.stderr.replace("'", "")
    assert "LlamaForCausalLM" in (tmp_path / "p" / "README.md").read_text()


@pytest.mark.parametrize("option", ["--latency", "--perplexity", "--policy=owl"])
def test_options_that_run_a_model_name_the_extra(option, tmp_path):
    words = [option, "--sparsity", "0.5", "--out", "x"]
    name = option.removeprefix("--policy=")
    for command in ("run", "prune") if name == "owl" else ("run",):
        script = f"{HEAD}command({command!r}, *{words}, code=2)"
        done = process(sys.executable, "-c", script, "", "", "", "--block", cwd=tmp_path)
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"sparsity-report: {name}: torch is not installed; run pip install ")


class Broken:
    @staticmethod
    def find_spec(name, *_):
        if name == "torch":
            raise OSError("libcudart.so: cannot open")


def test_broken_and_missing_libraries_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(sr.SparsityReportError, match="x: torch is not installed; run pip install"):
        torch_extra.need_torch("x")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    with pytest.raises(sr.SparsityReportError, match=r"x: torch cannot be imported \(libcudart"):
        torch_extra.need_torch("x")


def test_old_libraries_are_named(monkeypatch):
    monkeypatch.setattr("transformers.__version__", "4.57")
    with pytest.raises(sr.SparsityReportError, match=r"transformers 4\.57 is too old"):
        torch_extra.need_torch("x")


def test_the_extra_has_the_versions_that_are_checked():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [f"{name}>={oldest}" for name, oldest in torch_extra.OLDEST.items()]
    assert extra["optional-dependencies"]["torch"] == named


@pytest.mark.tools  # pip downloads
def test_the_core_renders_and_compares_where_torch_is_not_installed(saved, tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    (python,) = (tmp_path / "env").glob("*/python")
    pip = [sys.executable, "-m", "pip", "--python", python]
    done = process(*pip, "install", ".", "-q", "--no-compile", cwd=ROOT)
    need(done.returncode == 0, f"packages to install: {done.stderr}")
    listed = json.loads(process(*pip, "list", "--format=json", cwd=ROOT).stdout)
    names = {each["name"] for each in listed}
    assert "sparsity-report" in names
    assert not {"torch", "transformers"} & names
    run(python, HEAD + TEXT + WIDGETS + PAGES, saved, tmp_path)
    done = process(python, "-m", "sparsity_report", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
