from tests.portal.cast import cast

__all__ = ["cast"]
