"""`python -m kit19_ray`, for `ray job submit -- python -m kit19_ray train --config ...`."""

from kit19_ray.cli.main import main

main()
