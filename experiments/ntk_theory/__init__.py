"""Sources of growing depth: their tangent kernels, and what reprogramming them reaches (arXiv:2506.00620)."""
