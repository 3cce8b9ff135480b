"""What the dictionaries learned, to look at: search, filter and compare features in a browser or in JupyterLab.

    explorer = of_study(study)              # or Explorer(subjects, material) for dictionaries from elsewhere
    write_page(explorer, folder)            # a page that opens from a file
    features_frame(explorer)                # a pandas table
    widget.FeatureWidget(explorer)          # the page in a notebook's output

`data` says what is shown, `build` computes it, `page` writes it, `assets` is the page.
"""

from archsae_study.explorer.build import Explorer, Material, MaterialPart, Probes, Subject
from archsae_study.explorer.of_study import of_study
from archsae_study.explorer.page import write_page
from archsae_study.explorer.table import features_frame

__all__ = ["Explorer", "Material", "MaterialPart", "Probes", "Subject", "features_frame", "of_study", "write_page"]
