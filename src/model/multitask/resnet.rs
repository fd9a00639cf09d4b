//! ResNet-18 (He et al. 2016), with batch normalisation folded into the convolutions, which therefore
//! carry a bias.

use super::{Net, Parameters, RESNET_WIDTH};
use crate::model::onnx::{Attribute, Tensor};

/// Channels of the four stages; each has two blocks, and all but the first halve the picture.
pub const STAGES: [usize; 4] = [64, 128, 256, RESNET_WIDTH];

/// A square convolution.
#[derive(Clone, Copy)]
struct Convolution {
    channels_in: usize,
    channels_out: usize,
    kernel: usize,
    stride: i64,
    padding: i64,
}

impl Net<'_> {
    /// From `[b, 3, 224, 224]` to the feature maps `[b, 512, 7, 7]`.
    pub(super) fn resnet18(&mut self, image: &Tensor) -> Tensor {
        let mut channels = STAGES[0];
        let stem = Convolution { channels_in: 3, channels_out: channels, kernel: 7, stride: 2, padding: 3 };
        let x = self.convolution("stem", image, stem);
        let x = self.relu("stem", &x);
        let pool = [
            Attribute::Ints("kernel_shape", &[3, 3]),
            Attribute::Ints("strides", &[2, 2]),
            Attribute::Ints("pads", &[1, 1, 1, 1]),
        ];
        let mut x = self.graph.node("stem.pool", "MaxPool", &[&x], &pool);
        for (stage, channels_out) in STAGES.into_iter().enumerate() {
            for block in 0..2 {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let name = format!("layer{}.{block}", stage + 1);
                x = self.basic_block(&name, &x, channels, channels_out, stride);
                channels = channels_out;
            }
        }
        x
    }

    fn basic_block(
        &mut self,
        name: &str,
        x: &Tensor,
        channels_in: usize,
        channels_out: usize,
        stride: i64,
    ) -> Tensor {
        let first = Convolution { channels_in, channels_out, kernel: 3, stride, padding: 1 };
        let y = self.convolution(&format!("{name}.conv1"), x, first);
        let y = self.relu(&format!("{name}.conv1"), &y);
        let second = Convolution { channels_in: channels_out, stride: 1, ..first };
        let y = self.convolution(&format!("{name}.conv2"), &y, second);
        let skip = if channels_in == channels_out {
            x.clone()
        } else {
            let shortcut = Convolution { kernel: 1, padding: 0, ..first };
            self.convolution(&format!("{name}.downsample"), x, shortcut)
        };
        let sum = self.graph.node(&format!("{name}.sum"), "Add", &[&y, &skip], &[]);
        self.relu(&format!("{name}.sum"), &sum)
    }

    fn convolution(&mut self, name: &str, x: &Tensor, shape: Convolution) -> Tensor {
        let Convolution { channels_in, channels_out, kernel, stride, padding } = shape;
        let dims = [channels_out, channels_in, kernel, kernel];
        let Parameters { weight, bias } = self.parameters(name, &dims);
        let attributes = [
            Attribute::Ints("strides", &[stride, stride]),
            Attribute::Ints("pads", &[padding, padding, padding, padding]),
        ];
        self.graph.node(name, "Conv", &[x, &weight, &bias], &attributes)
    }
}
