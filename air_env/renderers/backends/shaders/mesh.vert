#version 330 core
// Many scenes in one viewport, each in its tile: what is a matrix elsewhere holds one object of one scene.

layout(location = 0) in vec3 position;
layout(location = NORMAL_LOC) in vec3 normal;
layout(location = COLOR_0_LOC) in vec4 color_0;
layout(location = INST_M_LOC) in mat4 inst_m;  // x y yaw scale | red green blue tile | camera, columns | light, -

uniform mat4 P;

out vec3 to_camera;
out vec3 frag_normal;
flat out vec3 base_color;
flat out vec3 to_light;
out float brightness;
out float gl_ClipDistance[4];

void main()
{
    float yaw = inst_m[0].z, scale = inst_m[0].w;
    mat3 turn = mat3(cos(yaw), sin(yaw), 0.0, -sin(yaw), cos(yaw), 0.0, 0.0, 0.0, 1.0);
    vec3 place = scale * (turn * position) + vec3(inst_m[0].xy, 0.0);
    vec3 camera = inst_m[2].xyz;

    vec3 back = normalize(camera);
    vec3 right = normalize(cross(vec3(0.0, 0.0, 1.0), back));
    vec4 seen = P * vec4(transpose(mat3(right, cross(back, right), back)) * (place - camera), 1.0);
    gl_ClipDistance[0] = seen.w - seen.x;
    gl_ClipDistance[1] = seen.w + seen.x;
    gl_ClipDistance[2] = seen.w - seen.y;
    gl_ClipDistance[3] = seen.w + seen.y;

    float tile = inst_m[1].w, columns = inst_m[2].w;
    float row = floor((tile + 0.5) / columns);
    vec2 centre = vec2(2.0 * (tile - row * columns) + 1.0 - columns, columns - 1.0 - 2.0 * row);
    gl_Position = vec4((seen.xy + centre * seen.w) / columns, seen.zw);

    to_camera = camera - place;
    frag_normal = turn * normal;
    base_color = inst_m[1].rgb;
    brightness = color_0.r;
    to_light = inst_m[3].xyz;
}
