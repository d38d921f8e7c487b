"""Kernels for TPUs in Pallas: the channel convolution, and the half-block around it.

A few rows of the map are one matrix [positions, channels]. Space is summed by the
matrix unit: a small constant matrix, made of the kernel's nine spatial taps, multiplies
those rows; one such product a channel tap. The channel axis lies along the lanes, where
a shift by one is a rotation, and the three products are added. So the matrix unit works
on a band of a few rows, where the dense band along the channels is C wide, and nothing
but x and y goes through memory.

Float32 is taken in full, in six passes of the matrix unit. A number that is not finite
reaches every position of its tile, in its channel and the two beside: 0 times it is
no number. No kernel here has run on a TPU yet: all are tested by Pallas's interpreter
and compiled for TPUs without one.
"""
