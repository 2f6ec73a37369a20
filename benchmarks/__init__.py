"""Speed and quality against peers and limits. Every script prints ratios measured in one run."""
