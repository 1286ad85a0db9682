"""Pages for people: the dashboard and the API's documentation. All files are local; nothing comes from elsewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

HERE = Path(__file__).parent / "dashboard"
POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
POLICY += "form-action 'none'; frame-ancestors 'none'; "
DASHBOARD = {"Content-Security-Policy": POLICY + "style-src 'self'", "Cache-Control": "no-cache"}
# Swagger UI sets styles from its script.
DOCS = {"Content-Security-Policy": POLICY + "style-src 'self' 'unsafe-inline'", "Cache-Control": "no-cache"}


def install(app: FastAPI) -> None:
    """Add the pages to `app`."""
    swagger = _swagger()
    if swagger is not None:
        app.mount("/assets/swagger", StaticFiles(directory=swagger), name="swagger")
    app.mount("/assets", StaticFiles(directory=HERE), name="assets")

    @app.get("/", include_in_schema=False)
    def dashboard() -> Response:
        return FileResponse(HERE / "index.html", headers=DASHBOARD)

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        page = "docs.html" if swagger is not None else "docs_missing.html"
        return FileResponse(HERE / page, headers=DOCS)


def _swagger() -> Path | None:
    """The folder with Swagger UI that the package fastapi-offline brings; None when it is not installed."""
    found = importlib.util.find_spec("fastapi_offline")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "static"
    return folder if (folder / "swagger-ui-bundle.js").is_file() else None
