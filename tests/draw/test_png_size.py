"""Saved notebooks' small PNGs equal the large ones of vl-convert, pixel for pixel."""

import base64

import altair as alt
import vl_convert

from sparsity_report.draw.png_size import opaque
from sparsity_report.draw.vega import VEGALITE

PIXELS = """async (letters) => {
    const image = new Image();
    image.src = "data:image/png;base64," + letters;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
    const sum = Array.from(data).reduce((a, b) => (31 * a + b) | 0, 7);
    return [width, height, new Set(data).size, sum];
}"""


def test_a_browser_sees_the_same_in_fewer_bytes(chromium):
    rows = alt.InlineData([{"x": f"{n % 30}", "y": n // 30, "z": n * n % 97} for n in range(210)])
    chart = alt.Chart(rows, background="white").mark_rect(stroke="white").encode(
        x="x:N", y="y:O", color=alt.Color("z:Q", scale=alt.Scale(scheme="viridis"))
    )  # fmt: skip
    drawn = vl_convert.vegalite_to_png(chart.to_dict(), vl_version=VEGALITE)
    page = chromium.new_page()
    observed, same = (
        page.evaluate(PIXELS, base64.b64encode(png).decode()) for png in (drawn, opaque(drawn))
    )
    page.close()
    assert observed == same
    assert observed[2] > 50
    assert len(opaque(drawn)) < len(drawn) / 2
    assert opaque(opaque(drawn)) == opaque(drawn)  # which has no opacity to lose
