#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Print docs/backbones.md: which backbones of mmpretrain can be slimmed."""

import argparse

from mutualnet_mm.apis.survey import survey_backbones, survey_page


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(survey_page(survey_backbones()), end='')


if __name__ == '__main__':
    main()
