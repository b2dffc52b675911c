"""Training options. Numbers that are None follow from the data set's size when training starts."""

import torch

train = dict(
    output_dir="./output",
    init_checkpoint="",  # weights to start from: a file or URL; empty: as the model is built
    init_averaged=True,  # of a checkpoint with averaged weights, take those, to start and to evaluate
    epochs=50,
    max_iter=None,  # None: epochs x (training images // images per batch)
    image_size=None,  # short side of evaluation in pixels, all other sizes scaled with it; None: as the data's config
    accumulate=1,  # parts that a batch is computed in, one after the other: memory for one, gradient of all
    checkpoint_activations=False,  # blocks computed again in the backward pass: True, or parts such as [encoder]
    lr_scaling="none",  # by the ratio of the batch to base_batch_size: linear, sqrt (its root) or none
    base_batch_size=None,  # images in all; None: the batch of the config file, before overrides
    warmup_epochs=None,  # linear from 0.001 of the rate, before lr_multiplier; 0: none; None: as lr_multiplier
    freeze=[],  # names or patterns of parameters: backbone, backbone.res2, encoder.layers.[0-2].*
    eval_period=None,  # in iterations; None: once per epoch, or per eval_epochs; 0: only at the end
    eval_epochs=None,  # epochs between evaluations, instead of eval_period
    validation_loss=False,  # each evaluation also has val_loss and its terms
    best=None,  # a result of evaluation such as bbox/AP, of whose best value model_best.pth is kept; None: of none
    patience=None,  # evaluations without a better `best` (None: bbox/AP) after which training stops
    log_period=20,  # 0: only at the end
    loggers=[],  # beside metrics.json and tensorboard: wandb, mlflow
    attention_sparsity=0,  # iterations between records of how sparse the decoder's cross-attention is; 0: none
    pictures=4,  # of detections beside the ground truth, at every evaluation; 0: none
    checkpointer=dict(period=None, max_to_keep=3),  # None: once per epoch; 0: only at the end; max_to_keep=0: all
    on_nonfinite="stop",  # or "skip": leave out a step whose loss or gradient is not finite
    on_nonfinite_limit=5,  # steps left out in a row, after which training stops
    data_timeout=1800,  # seconds to wait for a worker's next batch; 0: for ever
    amp=dict(enabled=False, dtype="bfloat16"),  # or float16, on CUDA only
    clip_grad=dict(max_norm=0.1, norm_type=2.0),  # norm of the whole model; max_norm=0: off
    ema=dict(enabled=False, decay=0.9998),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    device="cuda" if torch.cuda.is_available() else "cpu",
    seed=42,
    cudnn_benchmark=False,
)
