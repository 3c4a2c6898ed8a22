"""What people and programs are shown, whatever it is about: aligned tables, Markdown, HTML, SVG, JSON without nan.

Knows nothing of llama.cpp and imports no other room but `errors`.
Begin with `table`.
"""
