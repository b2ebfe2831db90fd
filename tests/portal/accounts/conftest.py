from tests.portal.browse import browse
from tests.portal.cast import cast

__all__ = ["browse", "cast"]
