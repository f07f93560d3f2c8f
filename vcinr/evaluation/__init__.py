"""What came out, beside what others get: rates, quality, classical codecs, published curves, plots, reports."""
