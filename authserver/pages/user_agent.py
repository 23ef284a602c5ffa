"""What a browser calls itself, in words that its owner knows it by."""

_BROWSERS = {
    "Edg": "Edge",
    "OPR": "Opera",
    "SamsungBrowser": "Samsung Internet",
    "Firefox": "Firefox",
    "FxiOS": "Firefox",
    "CriOS": "Chrome",
    "Chrome": "Chrome",
    "Safari": "Safari",
}
"""Each says that it is those after it, too."""
_SYSTEMS = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "CrOS": "ChromeOS",
    "Windows": "Windows",
    "Mac OS X": "macOS",
    "Linux": "Linux",
}
_MAX_PRODUCT = 40


def described(user_agent: str | None) -> tuple[str, str]:
    """Return browser and system, such as `Firefox` and `Android`; a program's own name and nothing; or nothing."""
    said = user_agent or ""
    browser = next((name for sign, name in _BROWSERS.items() if f"{sign}/" in said), "")
    system = next((name for sign, name in _SYSTEMS.items() if sign in said), "")
    if not browser:
        return said.split(" ")[0].split("/")[0][:_MAX_PRODUCT], system
    return browser, system
