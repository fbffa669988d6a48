"""``sparsity-report explore``: the explorer as one page."""

from helpers import command


def test_the_page_keeps_its_state(tmp_path, chromium):
    file = tmp_path / "seen" / "page.html"
    done = command("explore", "--sparsity", "30%", "-o", file)
    assert (done.stdout, done.stderr) == (f"Written to {file}\n", "")
    assert [*file.parent.iterdir()] == [file]
    page = chromium.new_page()
    wrong = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(file.as_uri())
    page.locator(".sv-ready").wait_for()
    assert page.locator(".kicker bdi").inner_text() == "demo"
    page.locator(".sv-slider").fill("45")
    page.wait_for_function("() => location.hash.includes('sparsity=0.45')")
    page.reload()
    page.locator(".sv-ready").wait_for()
    state = page.evaluate("document.querySelector('.sparsity-viewer').viewer.state")
    assert (state["variant"], state["sparsity"]) == ("at level", 0.45)
    assert wrong == []
    page.close()


def test_options_are_refused_before_a_model_is_opened(tmp_path):
    for option, message in (
        (("--policy", "magntude"), "--policy 'magntude' is unknown"),
        (("--sparsity", "half"), "--sparsity 'half' is not a share"),
        (("--calibration", "text"), "--calibration has no effect"),
    ):
        done = command("explore", tmp_path, *option, "-o", tmp_path / "page.html")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr


def test_other_files_are_refused_before_a_model_is_opened(tmp_path):
    for name in ("page.pdf", "page"):
        done = command("explore", "-o", tmp_path / "seen" / name)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "give a name that ends in .html" in done.stderr
    assert not (tmp_path / "seen").exists()
