"""Pages for people in browsers: they meet oauth/ only through URLs and the database."""

from authserver.pages.errors import response as error_response
from authserver.pages.routes import install, is_for_people

__all__ = ["error_response", "install", "is_for_people"]
