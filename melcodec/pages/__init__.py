"""Words, tables, figures and sounds -> one HTML file that needs no network.

What goes on a page are the parts of ``pages.parts``; ``write_page`` lays them out.
"""

from melcodec.pages.page import write_page
from melcodec.pages.parts import Part, Picture, Section, Sounds, Table, Text, Track

__all__ = ["Part", "Picture", "Section", "Sounds", "Table", "Text", "Track", "write_page"]
