"""Principal components of training patches: the KLT's basis, and where a warm-started field begins."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32


def principal_components(
    patches: Float32[np.ndarray, "m d"], num_components: int
) -> tuple[Float32[np.ndarray, " d"], Float32[np.ndarray, "k d"]]:
    """Mean [d] and the leading orthonormal components [k, d] of patches [m, d], by descending variance; k ≤ d, m."""
    import scipy.linalg  # Here, for it takes as long to import as a small picture takes to encode, and only training needs it.
    import scipy.sparse.linalg

    mean = patches.mean(0, dtype=np.float64).astype(np.float32)
    centred = patches - mean
    covariance = centred.T @ centred / len(patches)
    d = covariance.shape[0]
    k = min(num_components, d, len(patches))
    if 8 * k < d:
        # Lanczos, from a fixed start so that equal patches give equal components: seconds where the dense solver takes a minute.
        variances, vectors = scipy.sparse.linalg.eigsh(covariance, k, v0=np.ones(d, covariance.dtype))
        vectors = vectors[:, np.argsort(variances)]
    else:
        _, vectors = scipy.linalg.eigh(covariance, subset_by_index=(d - k, d - 1))
    return mean, np.ascontiguousarray(vectors[:, ::-1].T.astype(np.float32))
