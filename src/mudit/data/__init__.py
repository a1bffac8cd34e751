"""TEMPORARY stand-in by the lead until the data helper's files land; overwrite freely."""
from __future__ import annotations
import hashlib
from dataclasses import dataclass
import numpy as np, torch
@dataclass
class ImageDataset:
    name: str; images: np.ndarray; labels: np.ndarray; num_classes: int; class_names: tuple
    channels: int; size: int; flip: bool
    @property
    def num_samples(self): return len(self.labels)
    def batch(self, indices, flips=None):
        return torch.from_numpy(self.images[indices]), torch.from_numpy(self.labels[indices])
@dataclass
class Splits:
    train: ImageDataset; validation: ImageDataset; fingerprint: str
def open_dataset(spec, *, size=None, flip=None):
    from sklearn.datasets import load_digits
    d=load_digits(); order=np.random.default_rng(0).permutation(len(d.target)); k=len(order)//5
    x=(d.images/8-1).astype(np.float32)[:,None]; y=d.target.astype(np.int64)
    mk=lambda i: ImageDataset("digits",x[i],y[i],10,tuple("0123456789"),1,8,False)
    return Splits(mk(order[k:]),mk(order[:k]),hashlib.sha256(x.tobytes()).hexdigest())
def batch_indices(n,b,seed,step):
    per=n//b; e,k=divmod(step,per); return np.random.default_rng([seed,e]).permutation(n)[k*b:(k+1)*b]
def flips(seed,step,b): return None
