#ifndef CAIRN_ZLIB_SHIM_H
#define CAIRN_ZLIB_SHIM_H
#include <zlib.h>
#endif
