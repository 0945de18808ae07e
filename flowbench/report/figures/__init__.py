"""The pictures of a report, each one SVG that follows the page's light or dark colours."""
