"""MLflow's pages as a person goes through them, in headless Chromium.

A step finds things by what is seen or read aloud (text, role, label), closes whatever notice has come up over them,
waits until they are there, and fails with the name of what did not come.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

PATIENCE_S = 60  # a page takes 1 to 3 s, on a busy machine 20
WIDTH, HEIGHT = 1400, 900

UNSETTLED = (  # what a page throws while it draws itself anew: try again
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
# The notice of telemetry, the assistant that opens by itself at the first visit, and hints about new buttons
NOTICES = (
    "//button[@aria-label='Close alert']"
    " | //*[@data-assistant-ui]//button[@aria-label='Close']"
    " | //button[normalize-space()='Got it']"
)

T = TypeVar("T")


def missing() -> str | None:
    """What this machine lacks for a browser, or None."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(absent)} (Debian: apt-get install chromium chromium-driver)" if absent else None


@contextmanager
def chromium(profile: Path) -> Iterator[WebDriver]:
    """A browser with a new profile in the folder `profile`, which reaches 127.0.0.1 and nothing else."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        "headless=new",
        "no-sandbox",  # Chromium refuses to run as root with it
        "disable-gpu",
        "disable-quic",
        "disable-dev-shm-usage",  # 64 MB in a container: pages crash
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "no-proxy-server",
        "lang=en-US",
        f"user-data-dir={profile}",
        f"window-size={WIDTH},{HEIGHT}",
    ):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


@contextmanager
def evidence(browser: WebDriver, folder: Path) -> Iterator[None]:
    """Where the block fails, what was on the screen goes to `folder`, and the failure says so."""
    try:
        yield
    except Exception as error:
        browser.save_screenshot(str(folder / "screen.png"))
        (folder / "page.txt").write_text(browser.find_element("tag name", "body").text)
        raise AssertionError(f"{error}\n{browser.current_url} then: {folder}/screen.png, page.txt") from error


# --- what a person does with any page


def wait(browser: WebDriver, condition: Callable[[], T], what: str) -> T:
    """The first answer of `condition` that is true; raises TimeoutException with `what` after `PATIENCE_S`."""
    waiting = WebDriverWait(browser, PATIENCE_S, poll_frequency=0.2, ignored_exceptions=UNSETTLED)
    try:
        return waiting.until(lambda _: condition())
    except TimeoutException:
        raise TimeoutException(f"in {PATIENCE_S} s there was no {what} on {browser.current_url}") from None


def see(browser: WebDriver, xpath: str) -> WebElement:
    """The first visible element at `xpath`, once there is one."""
    return wait(browser, lambda: _visible(browser, xpath), xpath)


def press(browser: WebDriver, xpath: str) -> None:
    """Clicks on the first visible element at `xpath`, once it can be reached, whatever notice must be closed first."""

    def pressed() -> bool:
        close_notices(browser)
        if element := _visible(browser, xpath):
            element.click()
        return element is not None

    wait(browser, pressed, xpath)


def close_notices(browser: WebDriver) -> None:
    for button in browser.find_elements("xpath", NOTICES):
        if button.is_displayed():
            button.click()


def screenshot(browser: WebDriver) -> bytes:
    """The window as PNG, without notices, once nothing in it moves any more."""
    last = b""

    def same_again() -> bytes | None:
        nonlocal last
        close_notices(browser)
        before, last = last, browser.get_screenshot_as_png()
        return last if last == before else None

    return wait(browser, same_again, "window that holds still")


def _visible(browser: WebDriver, xpath: str) -> WebElement | None:
    return next((element for element in browser.find_elements("xpath", xpath) if element.is_displayed()), None)


# --- MLflow's pages; a run is named by its id, as names need not be unique


def open_experiment(browser: WebDriver, url: str, name: str) -> None:
    """From the front page to the table of the experiment's runs."""
    browser.get(url)
    press(browser, "//*[@role='button'][normalize-space()='Model training']")
    press(browser, "//nav//a[normalize-space()='Experiments']")
    press(browser, f"//main//a[normalize-space()='{name}']")
    see(browser, "//main//*[@role='grid']//a[contains(@href, '/runs/')]")


def run_names(browser: WebDriver) -> list[str]:
    """The names in the table of runs, from the top."""
    links = browser.find_elements("xpath", "//main//*[@role='gridcell']//a[contains(@href, '/runs/')]")
    placed = [(link.rect["y"], link.text) for link in links if link.is_displayed()]
    return [name for _, name in sorted(placed)]


def row_texts(browser: WebDriver, run_id: str) -> list[str]:
    """What stands in the row of a run; the table shows its left and its right part as two rows of one index."""
    row = f"//main//*[@role='row'][@aria-rowindex = {_row(run_id)}/@aria-rowindex]"
    return [cell.text for cell in browser.find_elements("xpath", f"{row}//*[@role='gridcell']")]


def unfold(browser: WebDriver, run_id: str) -> None:
    """Shows the children of a run in the table."""
    press(browser, f"{_row(run_id)}//*[@role='gridcell'][.{_link(run_id)}]//button")


def toggle_columns(browser: WebDriver, *names: str) -> None:
    """Adds to the table of runs the columns that it does not show, and takes away those that it does."""
    press(browser, "//main//button[normalize-space()='Columns']")
    for name in names:
        search = see(browser, "//*[@role='dialog']//input[@placeholder='Search columns']")
        search.send_keys(Keys.CONTROL, "a")
        search.send_keys(name)
        # what was searched for is emphasised, here the whole name
        press(browser, f"//*[@role='dialog']//strong[.='{name}'][normalize-space(..)='{name}']")
    search.send_keys(Keys.ESCAPE)
    wait(browser, lambda: _visible(browser, "//*[@role='dialog']") is None, "end of the list of columns")


def compare(browser: WebDriver, *run_ids: str) -> None:
    """Ticks runs in the table and opens their comparison, down to what differs between them."""
    for run_id in run_ids:
        # the box itself is transparent, what is around it draws the tick
        press(browser, f"{_row(run_id)}//input[@type='checkbox'][contains(@aria-label, 'row selection')]/..")
    press(browser, "//main//button[normalize-space()='Compare']")
    see(browser, f"//main//*[@role='heading' or self::h1 or self::h2][contains(., 'Comparing {len(run_ids)} Runs')]")
    press(browser, "//main//*[@role='button'][normalize-space()='Visualizations']")  # folds them away
    for part in ("Parameters", "Metrics"):
        press(browser, f"//button[@role='switch'][@aria-label='{part} - Show diff only']")


def compared(browser: WebDriver, heading: str) -> list[str]:
    """What the comparison says of each run beside `heading`: `Run Name:` or a parameter."""
    return [cell.text for cell in browser.find_elements("xpath", f"//main//tr[th[normalize-space()='{heading}']]/td")]


def compared_metric(browser: WebDriver, name: str) -> list[float]:
    """What the comparison says of each run beside a metric.

    Names and values are two lists that draw only what is in sight: this turns the wheel until the name is there, and
    reads what stands as far down its own list, for at their ends the two are not scrolled alike.
    """
    lists = "//main//*[@role='grid']//*[@role='rowgroup']"

    def beside() -> list[float]:
        names, values = browser.find_elements("xpath", lists)
        label = _visible(browser, f"{lists}//a[normalize-space()='{name}']/..")
        if label is None:
            ActionChains(browser).scroll_from_origin(ScrollOrigin.from_element(values), 0, 100).perform()
            return []
        down = label.rect["y"] - names.rect["y"] + values.rect["y"]
        cells = [(cell.rect, cell.text) for cell in values.find_elements("xpath", ".//div[span]")]
        return [float(text) for _, text in sorted((at["x"], text) for at, text in cells if abs(at["y"] - down) < 2)]

    return wait(browser, beside, f"metric {name}")


def open_artifact(browser: WebDriver, run_id: str, path: str) -> None:
    """From the table of runs to a file of a run."""
    press(browser, f"//main//*[@role='gridcell']{_link(run_id)}")
    press(browser, "//main//*[@role='tab'][normalize-space()='Artifacts']")
    for name in path.split("/"):
        press(browser, f"//main//*[@data-testid='artifact-tree-node'][@aria-label='{name}']")


def drawn_picture(browser: WebDriver, path: str) -> tuple[int, int]:
    """Width and height in pixels of the file of the picture that stands on the page, once it has been decoded."""

    def decoded() -> tuple[int, int] | None:
        picture = _visible(browser, f"//main//img[@alt='{path}']")
        size = picture and (picture.get_property("naturalWidth"), picture.get_property("naturalHeight"))
        return size if size and size[0] > 0 else None

    return wait(browser, decoded, f"picture {path}")


def _link(run_id: str) -> str:
    return f"//a[contains(@href, '/runs/{run_id}')]"


def _row(run_id: str) -> str:
    return f"//main//*[@role='row'][.{_link(run_id)}]"
