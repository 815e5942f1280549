#ifndef CAIRN_LZ4_SHIM_H
#define CAIRN_LZ4_SHIM_H
#include <lz4.h>
#endif
