"""`python -m fastapi_cloudflare_access` is `cf-access`."""

import sys

from fastapi_cloudflare_access.cli import main

if __name__ == "__main__":
    sys.exit(main())
