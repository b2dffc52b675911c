"""A DINO that trains from scratch on a CPU, for images of about 100 pixels: three scales, no encoder, 50 queries.

In place of an encoder, the positions are added to the tokens. The anchors have the size of objects in such images.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import DeformableEncoderLayer, InputPositionEncoder, build_small_resnet, class_loss_of

from .dino_r50 import model

sizes = dict(embed_dim=128, num_heads=4, ffn_dim=512, num_levels=3)

model.backbone = L(build_small_resnet)(out_features=["res3", "res4", "res5"])
model.neck.update(in_channels=dict(res3=64, res4=128, res5=192), embed_dim=128, num_levels=3)
model.neck.position.update(num_features=64, temperature=20)
model.encoder = L(InputPositionEncoder)(layer=L(DeformableEncoderLayer)(**sizes), num_layers=0)
model.proposals.update(num_queries=50, embed_dim=128, anchor_sides=[0.16, 0.30, 0.45])
model.queries.update(embed_dim=128, dn_number=16, label_noise=0.5, box_noise=0.8, max_queries=200)
model.queries.main.update(num_queries=50, embed_dim=128)
model.decoder.layer.update(**sizes)
model.decoder.num_layers = 3
model.decoder.norm.normalized_shape = 128
model.decoder.query_position.update(embed_dim=128, temperature=20)
model.head.update(num_layers=3, embed_dim=128)
class_loss_of(model.criterion).weight = 2.0
model.postprocess.num_detections = 100
