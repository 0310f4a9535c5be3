#!/bin/sh
# Makes the clip, the two pictures and the palette that the simulator serves: dusk over hills that pass at four speeds.
# Everything is drawn by ffmpeg's own filters from the formulas below, so the result belongs to this project and can be made again.
# Needs ffmpeg with libx264 and base64. Run it from anywhere; it writes beside itself.
set -eu
cd "$(dirname "$0")"

# 73 frames at 24 a second: like the provider's own clips, one frame more than a whole number of seconds.
FRAMES=73
RATE=24
ONCE="r=$RATE:d=0.04"
HOLD="loop=loop=-1:size=1"

# A layer of hills: colour at the crest, how much it darkens below, and the height of the crest as a formula of X.
hills() { # red green blue crest
    echo "color=c=black:s=1760x752:$ONCE,format=rgba,geq=\
r='$1*(0.45+0.55*exp(-max(0,Y-($4))/90))':\
g='$2*(0.45+0.55*exp(-max(0,Y-($4))/90))':\
b='$3*(0.45+0.55*exp(-max(0,Y-($4))/90))':\
a='255*clip(Y-($4)+0.5,0,1)',$HOLD"
}

SKY="color=c=black:s=1360x752:$ONCE,format=rgb24,geq=\
r='22+235*pow(Y/H,1.5)':\
g='20+150*pow(Y/H,2.4)':\
b='66+88*sin(PI*Y/H*0.9)-30*pow(Y/H,4)',$HOLD"
STARS="color=c=white:s=1360x752:$ONCE,format=rgba,geq=r=255:g=250:b=235:\
a='210*gt(abs(mod(sin(floor(X/2)*12.9898+floor(Y/2)*78.233)*43758.5453,1)),0.9985)*pow(max(0,1-Y/360),2)',$HOLD"
SUN="color=c=black:s=900x900:$ONCE,format=rgba,geq=r=255:\
g='236-70*clip(hypot(X-450,Y-450)/300,0,1)':\
b='190-150*clip(hypot(X-450,Y-450)/260,0,1)':\
a='max(255*clip(58.5-hypot(X-450,Y-450),0,1),170*exp(-max(0,hypot(X-450,Y-450)-58)/70)*clip((450-hypot(X-450,Y-450))/80,0,1))',$HOLD"

ffmpeg -hide_banner -loglevel error -y \
    -f lavfi -i "$SKY" -f lavfi -i "$STARS" -f lavfi -i "$SUN" \
    -f lavfi -i "$(hills 176 92 128 '470+34*sin(X/173)+16*sin(X/61+1)')" \
    -f lavfi -i "$(hills 120 62 112 '535+42*sin(X/211+2)+14*sin(X/47)')" \
    -f lavfi -i "$(hills 70 40 88 '600+46*sin(X/257+4)+12*sin(X/39+2)')" \
    -f lavfi -i "$(hills 30 20 48 '672+30*sin(X/190+1)+9*sin(X/29)+5*sin(X/11)')" \
    -filter_complex "[0][1]overlay=x=0:y=0[a];\
[a][2]overlay=x=430:y='-60+14*t':eval=frame[b];\
[b][3]overlay=x='-10*t':y=0:eval=frame[c];\
[c][4]overlay=x='-30-24*t':y=0:eval=frame[d];\
[d][5]overlay=x='-60-52*t':y=0:eval=frame[e];\
[e][6]overlay=x='-90-100*t':y=0:eval=frame,format=yuv420p[out]" \
    -map "[out]" -frames:v $FRAMES -r $RATE \
    -c:v libx264 -preset veryslow -tune animation -profile:v high -crf 21 \
    -movflags +faststart -fflags +bitexact -flags:v +bitexact -map_metadata -1 clip.mp4

ffmpeg -hide_banner -loglevel error -y -i clip.mp4 -vf "select=eq(n\,24)" -frames:v 1 -q:v 4 -fflags +bitexact -flags:v +bitexact thumbnail.jpg
ffmpeg -hide_banner -loglevel error -y -i clip.mp4 -vf "select=eq(n\,$((FRAMES - 1)))" -frames:v 1 -q:v 4 -fflags +bitexact -flags:v +bitexact last_frame.jpg

# The provider's `palette.grid` is 5 x 5 colours of 3 bytes, in base64.
ffmpeg -hide_banner -loglevel error -i thumbnail.jpg -vf "scale=5:5:flags=area,format=rgb24" -f rawvideo - | base64 -w 0 > palette.txt
ls -l clip.mp4 thumbnail.jpg last_frame.jpg palette.txt
