"""WRN-28-10 on CIFAR: 200 epochs, batch 128.

Cosine, as in the published code of MutualNet; the Wide ResNet paper decays in
steps instead (by 5 after 60, 120 and 160 epochs).
"""

_base_ = ['imagenet_bs1024_250e.py']

# Weight decay acts on everything here, batch norms and biases too.
optim_wrapper = dict(
    optimizer=dict(lr=0.1, weight_decay=5e-4), paramwise_cfg=None
)
param_scheduler = dict(end=200)
train_cfg = dict(max_epochs=200)
auto_scale_lr = dict(base_batch_size=128)
