"""Rules of operators on images: resizing, sampling at computed positions, detection."""
