# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""``python -m mutualnet_mm``: the command ``mutualnet``."""

from mutualnet_mm_command import main

if __name__ == '__main__':
    main()
