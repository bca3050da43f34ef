"""Pages in a real headless browser: they render, sort, play, fit, print, and complain about nothing."""

from __future__ import annotations

import pytest

from melcodec.pages import Picture, Section, write_page


def column(page, table, index):
    """Texts of a column, without what is for screen readers alone."""
    rows = "[...document.querySelectorAll('table')[table].tBodies[0].rows]"
    return page.evaluate(f"([table, index]) => {rows}.map(row => row.cells[index].firstChild.textContent)", [table, index])


def until(page, condition):
    """Wait until a script gives true; the page's own policy forbids playwright's way of doing that."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came: {condition}")


def directions(page, table):
    return page.evaluate(
        "table => [...document.querySelectorAll('table')[table].tHead.rows[0].cells].map(cell => cell.getAttribute('aria-sort'))",
        table,
    )


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_renders_without_network_complaints_or_overflow(visit, example_page, width, dark):
    opened = visit(example_page, width, dark)
    page = opened.page
    assert page.title() == "How good melcodec-base is"
    assert opened.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in opened.requests)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.evaluate(
        "[...document.images].map(image => [image.complete, image.naturalWidth, image.getBoundingClientRect().width])"
    )
    assert len(sizes) == 2
    for complete, natural, shown in sizes:
        assert complete
        assert natural > 0
        assert shown >= min(500, natural * 96 / 150), "readable: on a phone a picture scrolls rather than shrinks"
    ground, ink = page.evaluate(
        "(style => [style.backgroundColor, style.color])(getComputedStyle(document.body))",
    )
    assert (brightness(ground) < brightness(ink)) is dark


def brightness(colour):
    return sum(int(part) for part in colour[4:-1].split(","))


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_contrast(visit, example_page, dark):
    """WCAG AA: 4.5 to 1 against the nearest ground behind it."""
    script = """() => {
      const parse = c => c.match(/[\\d.]+/g).map(Number);
      const light = c => { const [r, g, b] = parse(c).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
        if (c.length < 4 || c[3] > 0) return `rgb(${c})`; } return "rgb(255,255,255)"; };
      return [...document.querySelectorAll("h1,h2,p,a,caption,th button,td,figcaption,.label,.seconds,#theme")].map(e => {
        const [x, y] = [light(getComputedStyle(e).color), light(ground(e))].sort((p, q) => q - p);
        return [(x + 0.05) / (y + 0.05), e.outerHTML.slice(0, 60)]; });
    }"""
    ratios = visit(example_page, dark=dark).page.evaluate(script)
    assert len(ratios) > 300
    assert min(ratios)[0] >= 4.5, min(ratios)


@pytest.mark.slow
def test_numbers_sort_by_value_and_what_is_missing_comes_last(visit, example_page):
    page = visit(example_page).page
    heading = page.get_by_role("button", name="Log-mel L1 (nats)")
    heading.click()
    assert column(page, 0, 4) == ["0.889", "1.310", "\N{INFINITY}", "\N{EN DASH}"]
    assert page.locator("tbody").first.locator("tr").first.locator("th").inner_text() == "melcodec-base", "rows stay whole"
    assert directions(page, 0) == ["none"] * 4 + ["ascending"] + ["none"] * 2
    heading.click()
    assert column(page, 0, 4) == ["\N{INFINITY}", "1.310", "0.889", "\N{EN DASH}"]
    assert directions(page, 0)[4] == "descending"
    page.get_by_role("button", name="Files").first.click()
    assert column(page, 0, 5) == ["49", "50", "50", "1,050"]
    page.get_by_role("button", name="p", exact=True).click()
    assert column(page, 0, 6) == ["4e-05", "0.010", "0.020", "0.500"]


@pytest.mark.slow
def test_words_sort_as_people_do_and_other_tables_stay(visit, example_page):
    page = visit(example_page).page
    before = column(page, 0, 0)
    heading = page.get_by_role("button", name="File", exact=True)
    heading.click()
    page.get_by_role("button", name="Codes", exact=True).click()
    assert column(page, 1, 5) == [str(index) for index in range(60)]
    heading.click()
    names = page.evaluate("[...document.querySelectorAll('table')[1].tBodies[0].rows].map(row => row.cells[0].textContent)")
    keys = [(name.split("/")[0], int(name.split("_")[-1].removesuffix(".flac"))) for name in names]
    assert keys == sorted(keys), "utterance_7 before utterance_14"
    assert column(page, 0, 0) == before


def test_the_keyboard_is_enough(visit, example_page):
    """Tab finds the skip link, then the headings; Enter and Space sort; focus is seen."""
    page = visit(example_page).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "STOI":
            break
    assert page.evaluate("document.activeElement.closest('table') === document.querySelector('table')")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert column(page, 0, 1) == ["0.512", "0.670", "0.710", "0.920"]
    assert page.evaluate("document.activeElement.textContent") == "STOI", "focus stays"
    page.keyboard.press("Space")
    assert column(page, 0, 1) == ["0.920", "0.710", "0.670", "0.512"]


@pytest.mark.slow
def test_players_play_one_at_a_time(visit, example_page):
    page = visit(example_page).page
    until(page, "[...document.querySelectorAll('audio')].every(player => player.readyState >= 1)")
    durations = page.evaluate("[...document.querySelectorAll('audio')].map(player => player.duration)")
    assert durations == pytest.approx([3.0] * 6, abs=0.01)
    playing = "[...document.querySelectorAll('audio')].map(player => !player.paused)"
    assert page.evaluate(f"document.querySelectorAll('audio')[0].play().then(() => {playing})") == [True] + [False] * 5
    until(page, "document.querySelectorAll('audio')[0].currentTime > 0.1")
    page.evaluate("document.querySelectorAll('audio')[4].play()")
    until(page, "document.querySelectorAll('audio')[0].paused")
    assert page.evaluate(playing) == [False] * 4 + [True, False]


@pytest.mark.slow
def test_tracks_stand_side_by_side_on_a_desk_and_below_each_other_in_a_hand(visit, example_page):
    script = (
        "[...document.querySelectorAll('.sounds')[0].querySelectorAll('audio')].map(player => player.getBoundingClientRect().top)"
    )
    assert len(set(visit(example_page, 1280).page.evaluate(script))) == 1
    assert len(set(visit(example_page, 390).page.evaluate(script))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_the_button_changes_the_colours_whatever_the_system_says(visit, example_page, dark):
    page = visit(example_page, dark=dark).page
    ground = "getComputedStyle(document.body).backgroundColor"
    before, button = page.evaluate(ground), page.locator("#theme")
    assert button.inner_text() == ("Light" if dark else "Dark")
    button.click()
    assert (brightness(page.evaluate(ground)) > brightness(before)) is dark
    assert button.inner_text() == ("Dark" if dark else "Light")
    button.click()
    assert page.evaluate(ground) == before


@pytest.mark.slow
def test_names_for_those_who_do_not_see(visit, example_page):
    page = visit(example_page).page
    for role, name in (
        ("link", "Skip to the content"),
        ("navigation", "Contents"),
        ("img", "Log-mel spectrogram of three seconds of speech"),
        ("table", "Sixty files."),
        ("columnheader", "STOI"),
        ("rowheader", "k-means floor"),
        ("cell", "missing"),
        ("button", "Switch to dark colours"),
    ):
        assert page.get_by_role(role, name=name).count() >= 1, (role, name)
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("heading", level=2).count() == 5


@pytest.mark.slow
def test_it_prints_in_black_on_white_and_whole(visit, example_page):
    page = visit(example_page, dark=True).page
    page.emulate_media(media="print")
    shown = "selector => [...document.querySelectorAll(selector)].map(element => getComputedStyle(element).display)"
    assert set(page.evaluate(shown, "audio") + page.evaluate(shown, "nav") + page.evaluate(shown, "#theme")) == {"none"}
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('td')).color") == "rgb(0, 0, 0)"
    assert page.evaluate("(long => long.scrollHeight - long.clientHeight)(document.querySelector('.long'))") <= 1
    assert page.pdf()[:4] == b"%PDF"


@pytest.mark.slow
def test_without_scripts_everything_is_there(browser, example_page):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(example_page.as_uri())
    assert page.locator("#theme").is_hidden()
    assert page.locator("tbody tr").count() == 4 + 60 + 1
    assert page.locator("audio").count() == 6
    context.close()


def test_the_policy_stops_what_a_picture_or_an_injected_tag_would_load(visit, tmp_path):
    """A hostile SVG does not run, and nothing on the page may reach for anything outside of it."""
    script = b"<script>parent.document.title='x'</script>"
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="document.title=1">' + script + b"</svg>"
    write_page(tmp_path / "page.html", "calm", [], [Section("s", [Picture(svg, "evil")])])
    opened = visit(tmp_path / "page.html")
    assert opened.page.title() == "calm"
    assert opened.complaints == []
    assert opened.page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'loaded', () => 'refused')") == "refused"
    opened.page.evaluate("document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:9/x.png'}))")
    opened.page.wait_for_timeout(200)
    refusals = [complaint for complaint in opened.complaints if "Content Security Policy" in complaint]
    assert any("/x.png" in refusal for refusal in refusals)
    assert any("connect" in refusal.lower() for refusal in refusals)
