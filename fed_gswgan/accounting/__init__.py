"""Privacy accounting: epsilon under each trust model, calibration, figures, and the audit."""
